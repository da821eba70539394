#!/usr/bin/env bash
# Runs eval/visual_search.yaml; further arguments go to `mmturn eval`.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" eval visual_search --benchmark visual_search "$@"
