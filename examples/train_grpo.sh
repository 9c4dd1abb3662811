#!/usr/bin/env bash
# GRPO by stock OpenRLHF from any checkpoint, rewarded by the verifier that annotated it:
#   MODEL=cft DATA=train.jsonl OUT=grpo bash examples/train_grpo.sh [FLAG...]
# DATA has a `question` and an `answer` a row. Any flag of openrlhf.cli.train_ppo_ray can follow, and wins over the one
# here. The variables below size it, from a laptop without a GPU to a cluster; SUBMIT=http://head:8265 submits it to one,
# where MODEL, DATA and OUT have to be what every node finds. Stopped or killed, the same command goes on.
set -euo pipefail
MODEL=${MODEL:?a checkpoint or hub name}
DATA=${DATA:?a data set with the columns question and answer}
OUT=${OUT:?a folder for the trained model}
NODES=${NODES:-1} GPUS=${GPUS:-1}         # of each node; each holds the model that trains and an engine
TENSOR_PARALLEL=${TENSOR_PARALLEL:-1}     # GPUS of an engine
PROMPTS=${PROMPTS:-128} SAMPLES=${SAMPLES:-8} # a step: so many questions, so many responses to each
MICRO=${MICRO:-8}                         # responses that go through the model at once
PROMPT_LENGTH=${PROMPT_LENGTH:-1024} LENGTH=${LENGTH:-1024} # tokens
EPISODES=${EPISODES:-1} LR=${LR:-1e-6} SEED=${SEED:-42}
SAVE=${SAVE:-20}                          # steps from one checkpoint to the next
VERIFIER=${VERIFIER:-math}                # as in --annotate.verifier; or the path of your own reward file
# A question becomes a prompt by the model's chat template, or by TEMPLATE, whose {} is the question.
[ -n "${TEMPLATE:-}" ] && PROMPT=(--data.input_template "$TEMPLATE") || PROMPT=(--data.apply_chat_template)

if [ -e "$MODEL/adapter_config.json" ]; then
  base=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["base_model_name_or_path"])' "$MODEL/adapter_config.json")
  echo "train_grpo: $MODEL is a LoRA adapter, and vLLM gets whole weights. Merge it first, then train the result:
  python -m openrlhf.cli.lora_combiner --model_path $base --lora_path $MODEL --output_path $MODEL-merged" >&2
  exit 2
fi
case $VERIFIER in
*.py) REWARD=$VERIFIER ;;
*) REWARD=$(python -c 'import importlib.util; print(importlib.util.find_spec("openrlhf_cft.reward").origin)') ;;
esac
export OPENRLHF_CFT_VERIFIER=${VERIFIER/%*.py/math}
# Its special tokens end responses; other nodes of a cluster may not have the folder, and know those of all families.
[ -n "${SUBMIT:-}" ] || [ ! -e "$MODEL/tokenizer_config.json" ] || export OPENRLHF_CFT_MODEL=${OPENRLHF_CFT_MODEL:-$(realpath "$MODEL")}

eval "$(python -m openrlhf_cft.engine.platform)"
if [ "${DS_ACCELERATOR:-}" = cpu ]; then
  # OpenRLHF asks Ray for GPUs. These are names only, of a Ray of its own: processes that share the cores.
  export RAY_ADDRESS=local OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)} # of which Ray would leave one
  export RAY_OVERRIDE_RESOURCES="{\"CPU\": $((4 * GPUS)), \"GPU\": $GPUS, \"object_store_memory\": 500000000}"
  MACHINE=(--ds.attn_implementation sdpa --vllm.enforce_eager)
  # At its end Ray would kill the children of its actors, and with them Python's resource tracker, which is there to remove
  # the shared memory of vLLM and of the verifiers. On a GPU it has to: a child would keep the GPU's memory.
  export RAY_kill_child_processes_on_worker_exit=0
else
  # Training and engines take turns on the same GPUs, so each sleeps while the other works.
  MACHINE=(--ds.attn_implementation "${ATTENTION:-flash_attention_2}" --ds.enable_sleep --vllm.enable_sleep --vllm.gpu_memory_utilization 0.6
    --actor.gradient_checkpointing_enable)
fi

START=(python -m openrlhf.cli.train_ppo_ray)
if [ -n "${SUBMIT:-}" ]; then
  variables=$(python -c 'import json, os, sys; print(json.dumps({"env_vars": {n: os.environ[n] for n in sys.argv[1:] if n in os.environ}}))' \
    OPENRLHF_CFT_VERIFIER OPENRLHF_CFT_VERIFIER_WORKERS TOKENIZERS_PARALLELISM NCCL_DEBUG DS_SKIP_CUDA_CHECK VLLM_USE_FLASHINFER_SAMPLER)
  START=(ray job submit --address "$SUBMIT" --runtime-env-json "$variables" -- "${START[@]}")
fi
"${START[@]}" \
  --actor.model_name_or_path "$MODEL" \
  --data.prompt_dataset "$DATA" --data.input_key question --data.label_key answer "${PROMPT[@]}" \
  --reward.remote_url "$REWARD" \
  --algo.advantage.estimator group_norm \
  --algo.kl.init_coef 0 \
  --actor.entropy_coef 0.0 \
  --actor.adam.lr "$LR" \
  --rollout.batch_size "$PROMPTS" --rollout.n_samples_per_prompt "$SAMPLES" --rollout.micro_batch_size "$MICRO" \
  --rollout.max_new_tokens "$LENGTH" --data.max_len $((PROMPT_LENGTH + LENGTH)) \
  --train.batch_size $((PROMPTS * SAMPLES)) --train.micro_batch_size "$MICRO" \
  --train.num_episodes "$EPISODES" --train.seed "$SEED" \
  --train.colocate_all \
  --actor.num_nodes "$NODES" --actor.num_gpus_per_node "$GPUS" \
  --vllm.num_engines $((NODES * GPUS / TENSOR_PARALLEL)) --vllm.tensor_parallel_size "$TENSOR_PARALLEL" \
  --vllm.enable_prefix_caching \
  --ds.zero_stage "${ZERO:-2}" --ds.param_dtype "${PARAM_DTYPE:-bf16}" --ds.packing_samples \
  --logger.tensorboard_dir "$OUT/tensorboard" --logger.wandb.run_name grpo \
  --ckpt.path "$OUT/checkpoints" --ckpt.save_steps "$SAVE" --ckpt.max_num 2 --ckpt.load_enable \
  --ckpt.output_dir "$OUT" \
  "${MACHINE[@]}" "$@"
