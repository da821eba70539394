#!/usr/bin/env bash
# Runs train/nano_prefer.yaml; further arguments go to `mmturn` (see `mmturn prefer --help`).
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" prefer nano_prefer "$@"
