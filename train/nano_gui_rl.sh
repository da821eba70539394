#!/usr/bin/env bash
# Runs train/nano_gui_rl.yaml; further arguments go to `mmturn` (see `mmturn train --help`).
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" train nano_gui_rl "$@"
