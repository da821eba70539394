#!/usr/bin/env bash
# Runs train/nano_offline.yaml; further arguments go to `mmturn` (see `mmturn offline --help`).
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" offline nano_offline "$@"
