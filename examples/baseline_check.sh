#!/usr/bin/env bash
# Is CFT better than SFT on your model and data? The first thing to check before a long run: both are trained on the same
# annotated responses, all else equal, and compared on the same test questions, with intervals.
#   bash examples/baseline_check.sh                        # SmolLM2-135M on 800 small questions: an hour on 2 CPU cores
#   MODEL=Qwen/Qwen2.5-7B TRAIN=openai/gsm8k@main TEST=gsm8k LENGTH=1024 BATCH=64 LR=5e-6 GPUS=8 RUN=runs/gsm8k \
#     ATTENTION=flash_attention_2 bash examples/baseline_check.sh        # the paper's size: expect 3 to 6 points more
# No difference there? See that the start of the CFT training marks tokens, and that `critical_share` is not 1.
# One seed; `examples/evidence/` has several, a sweep of learning rates, and more to compare with.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUN=${RUN:-runs/baseline_check}
if [ -z "${TRAIN:-}" ]; then
  export TRAIN=$RUN/wide/train.jsonl TEST=$RUN/wide/test.jsonl
  python examples/make_questions.py --output_dir "$RUN/wide" --mix wide --train "${ROWS:-800}" --test "${ROWS_TEST:-240}"
fi
bash examples/quickstart.sh
