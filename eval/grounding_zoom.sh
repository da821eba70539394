#!/usr/bin/env bash
# Runs eval/grounding_zoom.yaml; further arguments go to `mmturn eval`: --benchmark and --data, for one.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" eval grounding_zoom "$@"
