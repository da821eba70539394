#!/usr/bin/env bash
# Train the small policy from nothing on a CPU: world, tokenizer, vision tower, language, cold start.
# usage: bash train/nano.sh OUT_DIR     (sizes can be set by the variables below)
# The shipped weights took the language stage in three runs (1250, 400 and 200 steps, each begun from the one before).
set -euo pipefail
out=${1:?usage: bash train/nano.sh OUT_DIR}
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python}
work="$out/work"
mkdir -p "$work"

scenes=${SCENES:-6000} crowds=${CROWDS:-3000}
tower_steps=${TOWER_STEPS:-1300} language_steps=${LANGUAGE_STEPS:-2400}

$python -m train.nano.sampling --out "$work/views.pkl" --scenes "$scenes"
$python -m train.nano.sampling --out "$work/views_val.pkl" --scenes 300 --split val
$python -m train.nano.sampling --out "$work/crowds.pkl" --scenes "$crowds" --first 100000 --crops 0
$python data/visual_search.py --out "$work/val" --split val --tasks 120 --seed 7

$python -m train.nano.tower --out "$work/tower" --views "$work/views.pkl" --crowds "$work/crowds.pkl" \
  --val "$work/views_val.pkl" --steps "$tower_steps"
$python -m train.nano.language --start "$work/tower" --out "$out/nano-base" --views "$work/views.pkl" \
  --tasks "$work/val/tasks.jsonl" --steps "$language_steps"
$python -m mmturn sft nano_sft --model "$out/nano-base" --out "$out/sft"
cp -r "$out/sft/checkpoints/update_000040/policy" "$out/nano"
