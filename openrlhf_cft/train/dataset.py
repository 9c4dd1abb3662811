"""Annotated rows as the stock trainer's data set: stored token ids, flags, and one weight a token.

Invariants:

- The stored ids go to the model unchanged: nothing is tokenized, templated, stripped, or ended with EOS. A sequence
  longer than `--data.max_len` is cut at its end, so weights stay with their tokens.
- A row without a trained token (none annotated, or cut off) is skipped and counted. Its loss would be zero.
- The rows stay in Arrow; one row at a time becomes tensors.

    dataset = CriticalTokenDataset(rows, tokenizer, 2048, strategy, mask_column="critical_mask")
    input_ids_1L, flags_1L, loss_mask_1L = dataset[0]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from openrlhf.datasets import SFTDataset
from torch.utils.data import Dataset

from openrlhf_cft import records
from openrlhf_cft.train import checks, flags
from openrlhf_cft.train.checks import InputError


def encode_row(
    prompt_ids: Sequence[int], response_ids: Sequence[int], weights: Sequence[float], max_length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One row as the stock `collate_fn` takes it, L = min(P + T, max_length).

    Returns:
        input_ids (1, L) int64, flags (1, L) int64 (`flags`), loss mask (1, L) float32, shifted (`records.loss_mask`).
    """
    ids_L = torch.tensor([*prompt_ids, *response_ids], dtype=torch.long)[:max_length]
    mask_L = torch.tensor(records.loss_mask(len(prompt_ids), weights, max_length), dtype=torch.float32)
    return ids_L[None], flags.encode(len(prompt_ids), mask_L)[None], mask_L[None]


class CriticalTokenDataset(SFTDataset):
    """`openrlhf.datasets.SFTDataset` over annotated rows; its `collate_fn` and its place in the stock script are kept.

    Args:
        dataset: a `datasets.Dataset` with `prompt_token_ids`, `response_token_ids` and the mask column.
        tokenizer: the model's, for padding and display only.
        max_length: each sequence is cut to this many tokens.
        strategy: OpenRLHF's, for printing on rank 0 only.
        input_template, num_processors: of the stock signature; they have no meaning here.
        pretrain_mode, multiturn: refused.
        mask_column: the column of weights.

    Raises:
        InputError: a mode that is refused, a missing column, a bad row (named), or no row with a trained token.
    """

    def __init__(
        self,
        dataset: Any,
        tokenizer: Any,
        max_length: int,
        strategy: Any,
        input_template: str | None = None,
        pretrain_mode: bool = False,
        num_processors: int = 8,
        multiturn: bool = False,
        *,
        mask_column: str = records.MASK,
    ) -> None:
        Dataset.__init__(self)  # not SFTDataset's, which tokenizes text
        checks.refuse_modes(pretrain_mode=pretrain_mode, multiturn=multiturn)
        self.tokenizer = tokenizer
        self.strategy = strategy
        self.max_length = max_length
        self.pretrain_mode = pretrain_mode
        self.multiturn = multiturn
        self.mask_column = mask_column
        self.rows = self._usable(dataset)

    def _usable(self, dataset: Any) -> Any:
        """The rows with a trained token, Arrow-backed; sets the counts that are logged."""
        checks.require_columns(dataset.column_names, self.mask_column, "the data set")
        if len(dataset) == 0:
            raise InputError("the data set has no rows")
        columns = checks.columns_to_read(dataset.column_names, self.mask_column)
        view = dataset.select_columns(columns).with_format("arrow")
        counts, first = [], 0
        for table in view.iter(batch_size=checks.ROWS_AT_ONCE):
            counts.append(checks.count_tokens(table, self.mask_column, self.max_length, first))
            first += len(table)
        trained_R = np.concatenate([count.trained_R for count in counts])
        response_R = np.concatenate([count.response_R for count in counts])
        usable_R = trained_R > 0
        self.skipped = int((~usable_R).sum())
        self.trained_tokens = int(trained_R.sum())
        self.response_tokens = int(response_R[usable_R].sum())
        if not usable_R.any():
            raise InputError(checks.no_trained_token("the data set", len(dataset), self.mask_column, self.max_length))
        self.strategy.print(
            f"critical tokens: {usable_R.sum()} rows, {self.trained_tokens} of {self.response_tokens} response tokens "
            f"trained ({self.trained_tokens / self.response_tokens:.1%}); {self.skipped} rows skipped for having none"
        )
        rows = dataset.select_columns(columns)
        return rows if self.skipped == 0 else rows.select(np.flatnonzero(usable_R))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, idx: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Row `idx` of those that are not skipped, as `encode_row` returns it."""
        row = self.rows[idx]
        return encode_row(row[records.PROMPT_IDS], row[records.RESPONSE_IDS], row[self.mask_column], self.max_length)
