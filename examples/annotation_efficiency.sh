#!/usr/bin/env bash
# What does annotation cost, and what do batching, cached prefixes and skipped rollouts save?
#   bash examples/annotation_efficiency.sh                 # SmolLM2-135M, 48 responses: 10 minutes on 2 CPU cores
#   MODEL=Qwen/Qwen2.5-7B-Instruct ROWS=100 LENGTH=512 DATA=gsm8k.jsonl bash examples/annotation_efficiency.sh  # a GPU
# The last line is JSON: `speedup_vs_sequential` (one rollout after another) should be over 10.
set -euo pipefail
cd "$(dirname "$0")/.."
RUN=${RUN:-runs/annotation_efficiency}
eval "$(python -m openrlhf_cft.engine.platform)"
if [ -z "${MODEL:-}" ]; then
  MODEL=$RUN/model
  python examples/make_model.py --output_dir "$MODEL"
fi
python examples/bench_annotate.py --model "$MODEL" --rows "${ROWS:-48}" --questions "${QUESTIONS:-$((4 * ${ROWS:-48}))}" \
  --max_new_tokens "${LENGTH:-48}" ${DATA:+--data "$DATA"}
