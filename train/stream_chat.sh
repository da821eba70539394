#!/usr/bin/env bash
# Runs train/stream_chat.yaml; further arguments go to `mmturn` (see `mmturn train --help`).
set -euo pipefail
cd "$(dirname "$0")/.."
# One process per GPU of this machine; on several machines give torchrun its --nnodes and --rdzv options.
GPUS="${GPUS:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}"
exec "${PYTHON:-.venv/bin/python}" -m torch.distributed.run --nproc-per-node "$((GPUS > 0 ? GPUS : 1))" \
  -m mmturn train stream_chat "$@"
