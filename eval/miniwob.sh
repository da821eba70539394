#!/usr/bin/env bash
# Runs eval/miniwob.yaml; further arguments go to `mmturn eval`.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" eval miniwob --benchmark miniwob "$@"
