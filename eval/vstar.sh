#!/usr/bin/env bash
# Runs eval/vstar.yaml; further arguments go to `mmturn eval`.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" eval vstar --benchmark vstar "$@"
