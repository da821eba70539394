#!/usr/bin/env bash
# Runs train/nano_video_sft.yaml; further arguments go to `mmturn` (see `mmturn sft --help`).
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" sft nano_video_sft "$@"
