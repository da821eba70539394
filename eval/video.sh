#!/usr/bin/env bash
# Runs eval/video.yaml; further arguments go to `mmturn eval`: --benchmark and --data, for one.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" eval video "$@"
