#!/usr/bin/env bash
# Does reinforcement learning that starts from CFT explore better? `make grpo`, or with your own
#   SFT=sft CFT=cft DATA=train.jsonl RUN=runs/mine SEEDS="1 2 3" bash examples/rl_start.sh [FLAG...]
# The same GRPO run (examples/train_grpo.sh, sized by its variables) from both checkpoints, with the same data and seeds,
# then one figure and report.json. Of each run only the curves stay, unless KEEP=1. A killed run goes on where it stopped.
set -euo pipefail
HERE=$(dirname "$0")
RUN=${RUN:-runs/grpo}
SFT=${SFT:-runs/quickstart/sft} CFT=${CFT:-runs/quickstart/cft}
export DATA=${DATA:-runs/quickstart/questions/train.jsonl}
mkdir -p "$RUN"
echo "rl_start: all of the output is in $RUN/grpo.log"

runs=()
for seed in ${SEEDS:-42}; do
  for arm in sft cft; do
    folder=$RUN/$arm-$seed
    if [ ! -e "$folder/done" ]; then
      printf '\n== GRPO from %s, seed %s (%d s since the start)\n' "$arm" "$seed" "$SECONDS"
      start=${arm^^}
      MODEL=${!start} OUT=$folder SEED=$seed python "$HERE/quiet.py" --log "$RUN/grpo.log" -- bash "$HERE/train_grpo.sh" "$@"
      rm -rf "$folder/checkpoints"
      [ -n "${KEEP:-}" ] || rm -f "$folder"/*.safetensors
      touch "$folder/done"
    fi
    runs+=("$arm=$folder/tensorboard/grpo")
  done
done
python "$HERE/rl_curves.py" --runs "${runs[@]}" --output_dir "$RUN" --seconds "$SECONDS"
