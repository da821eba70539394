#!/usr/bin/env bash
# Runs eval/streambench.yaml; further arguments go to `mmturn eval`: --data, for one.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" eval streambench --benchmark streambench "$@"
