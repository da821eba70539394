#!/usr/bin/env bash
# Teach the small policy of images to watch films, on a CPU: language on features of the frozen tower, cold start.
# usage: bash train/nano_video.sh OUT_DIR     (sizes can be set by the variables below)
# The shipped weights took the first stage in two runs (420 films, 700 steps; then 700 films, 1600 steps, --seed 1).
set -euo pipefail
out=${1:?usage: bash train/nano_video.sh OUT_DIR}
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python}
films=${FILMS:-700} steps=${STEPS:-2300}

$python -m train.nano.video --start checkpoints/nano --out "$out/base" --films "$films" --steps "$steps" --offset 0.3
$python -m mmturn sft nano_video_sft --model "$out/base" --out "$out/sft"
cp -r "$out/sft/checkpoints/update_000030/policy" "$out/nano_video"
