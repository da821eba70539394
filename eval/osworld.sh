#!/usr/bin/env bash
# Runs eval/osworld.yaml; further arguments go to `mmturn eval`: --data and --set env.address, for one.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${MMTURN:-.venv/bin/mmturn}" eval osworld --benchmark osworld "$@"
