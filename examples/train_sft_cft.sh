#!/usr/bin/env bash
# Critical Token Fine-tuning of Qwen2.5-7B on 8 GPUs: OpenRLHF's own SFT script with one flag more.
#   DATA=annotated bash examples/train_sft_cft.sh [FLAG...]
# DATA is what `annotate` wrote. Any flag of openrlhf.cli.train_sft can follow, and wins over the one here.
set -euo pipefail
MODEL=${MODEL:-Qwen/Qwen2.5-7B}
DATA=${DATA:-./annotated}
OUT=${OUT:-./checkpoint/qwen2.5-7b-cft}

deepspeed --num_gpus "${GPUS:-8}" --master_port "${PORT:-29500}" --module openrlhf_cft.cli.train_sft --critical_mask \
  --model.model_name_or_path "$MODEL" \
  --data.dataset "$DATA" \
  --data.max_len 4096 \
  --train.batch_size 64 \
  --train.micro_batch_size 4 \
  --train.max_epochs 3 \
  --adam.lr 5e-6 \
  --ds.zero_stage 3 \
  --ds.param_dtype bf16 \
  --ds.attn_implementation "${ATTENTION:-flash_attention_2}" \
  --ds.packing_samples \
  --model.gradient_checkpointing_enable \
  --logger.logging_steps 1 \
  --logger.tensorboard_dir "$OUT/tensorboard" \
  --ckpt.path "$OUT/checkpoints" \
  --ckpt.save_steps 100 \
  --ckpt.load_enable \
  --ckpt.output_dir "$OUT" \
  "$@"
