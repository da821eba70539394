#!/usr/bin/env bash
# Runs eval/video_world.yaml; further arguments go to `mmturn eval`.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" eval video_world --benchmark video_world "$@"
