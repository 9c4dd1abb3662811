"""The stock SFTTrainer with the CFT loss, and with logs about the trained tokens.

The loop is the stock `fit`. The stock logs (TensorBoard, W&B) also get these, over one optimizer step and all ranks:

    critical_tokens   trained tokens
    critical_share    trained tokens / response tokens
    critical_loss     sum(w * nll) / sum(w) (Eq. 8 of arXiv 2510.10974), whatever loss is trained with

Evaluation logs `critical_share` and `critical_loss` under `eval/`. Only there it also logs `critical_entropy`,
`other_loss` and `other_entropy` (nats; "other": the response tokens whose weight is zero), because training does not
compute the logits that these need. Without a mask column (`--cft.loss dft` alone) there are only the stock logs.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from openrlhf.trainer.sft_trainer import SFTTrainer
from torch import nn
from tqdm import tqdm

from openrlhf_cft.display import marks_for_stdout, printable
from openrlhf_cft.train import mask_bits, show
from openrlhf_cft.train.arguments import Options
from openrlhf_cft.train.dataset import CriticalTokenDataset
from openrlhf_cft.train.loss import CriticalTokenLoss, critical_logs, evaluation_logs


class CriticalTokenTrainer(SFTTrainer):
    """`openrlhf.trainer.sft_trainer.SFTTrainer`. Apart from `options`, its constructor and `fit` are the stock ones.

    Raises:
        InputError: no row of the training data has weights.
    """

    def __init__(self, *args: Any, options: Options, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_fn = CriticalTokenLoss(options.loss)
        self._masked = options.column is not None
        dataset = self.train_dataloader.dataset
        if isinstance(dataset, CriticalTokenDataset):
            dataset.require_weights()
        self.model.register_forward_hook(self._count_tokens, with_kwargs=True)

    def _count_tokens(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook. The loss never sees the flags, so the other figures are counted here."""
        attention_mask = kwargs.get("attention_mask")
        if attention_mask is None or not mask_bits.has_flags(attention_mask):
            return
        self.loss_fn.meter.add_flags(attention_mask)
        if not module.training:
            self.loss_fn.meter.add_evaluated(attention_mask, output, module.entropy)

    def fit(self, args: Any, consumed_samples: int = 0, num_update_steps_per_epoch: int | None = None) -> None:
        """Print one example with its trained tokens marked, then run the stock loop."""
        self._show_example()
        self._total_steps = len(self.train_dataloader) * self.epochs // max(1, self.strategy.accumulated_gradient)
        self._first_step, self._started = self.model.model.global_steps, time.monotonic()
        super().fit(args, consumed_samples, num_update_steps_per_epoch)

    def _show_example(self) -> None:
        dataset = self.train_dataloader.dataset
        if not self.strategy.is_rank_0() or not isinstance(dataset, CriticalTokenDataset):
            return
        input_ids_1L, flags_1L, _ = dataset[0]
        text = show.mark_trained(self.tokenizer, input_ids_1L[0], flags_1L[0], marks_for_stdout())
        print(printable(f"one example, trained tokens marked:\n{text}"), flush=True)

    def save_logs_and_checkpoints(
        self,
        args: Any,
        global_step: int,
        step_bar: Any,
        logs_dict: dict[str, float] | None = None,
        client_states: dict[str, Any] | None = None,
    ) -> None:
        """The stock logs, evaluation and checkpoints of one optimizer step, with the figures of critical tokens."""
        critical = critical_logs(self._reduce_meter()) if self._masked else {}
        if self._masked and global_step % args.logger.logging_steps == 0 and self.strategy.is_rank_0():
            tqdm.write(self._line(global_step, critical))  # past the progress bars, to stdout
        super().save_logs_and_checkpoints(
            args, global_step, step_bar, {**(logs_dict or {}), **critical}, client_states
        )

    def _reduce_meter(self) -> dict[str, float]:
        """The meter's sums over all ranks; every rank must call it."""
        meter = self.loss_fn.meter
        total = self.strategy.all_reduce(meter.take(), op="sum")
        return dict(zip(meter.NAMES, total.tolist(), strict=True))

    def _line(self, step: int, logs: dict[str, float]) -> str:
        rate = (step - self._first_step) / (time.monotonic() - self._started)
        eta = timedelta(seconds=round((self._total_steps - step) / rate))
        loss = f"{logs['critical_loss']:.4f}" if "critical_loss" in logs else "none"
        share = f" ({100 * logs['critical_share']:.1f} %)" if "critical_share" in logs else ""
        return (
            f"step {step}/{self._total_steps}  loss {loss}  critical tokens {logs['critical_tokens']:.0f}{share}"
            f"  {rate:.2g} steps/s  eta {eta}"
        )

    def evaluate(self, eval_dataloader: Any, steps: int = 0) -> None:
        """The stock evaluation, whose loss is a mean over batches. Also logs our means over all tokens."""
        super().evaluate(eval_dataloader, steps)
        if not self._masked:
            return
        logs = evaluation_logs(self._reduce_meter())
        if not self.strategy.is_rank_0():
            return
        figures = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in logs.items())
        tqdm.write(f"evaluation at step {steps}: {figures}")
        if self._wandb is not None:
            self._wandb.log({f"eval/{name}": value for name, value in {**logs, "global_step": steps}.items()})
        elif self._tensorboard is not None:
            for name, value in logs.items():
                self._tensorboard.add_scalar(f"eval/{name}", value, steps)
