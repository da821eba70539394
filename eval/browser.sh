#!/usr/bin/env bash
# Runs eval/browser.yaml on MiniWoB++; further arguments go to `mmturn eval`.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" eval browser --benchmark miniwob "$@"
