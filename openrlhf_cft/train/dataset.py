"""Annotated rows as the stock trainer's data set: stored token ids, flags, and one weight per token.

Invariants:

- The stored ids go to the model unchanged: nothing is tokenized, templated, stripped, or ended with EOS. A sequence
  longer than `--data.max_len` is cut at its end, so weights stay with their tokens.
- A row without a trained token (none annotated, or cut off) is skipped and counted. Its loss would be zero.
- A row without weights is refused, dropped, or trained on all its response tokens (`rows`, `--cft.missing`). If it has
  only text, the stock data set prepares it, including templates and turns.
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

from openrlhf_cft.data import records
from openrlhf_cft.data.loss_mask import loss_mask
from openrlhf_cft.errors import InputError
from openrlhf_cft.train import mask_bits, row_checks, rows


def encode_row(
    prompt_ids: Sequence[int], response_ids: Sequence[int], weights: Sequence[float], max_length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Encode one row for the stock `collate_fn`, L = min(P + T, max_length).

    Returns:
        input_ids (1, L) int64, flags (1, L) int64 (`mask_bits`), loss mask (1, L) float32, shifted
        (`data.loss_mask`).
    """
    ids_L = torch.tensor([*prompt_ids, *response_ids], dtype=torch.long)[:max_length]
    mask_L = torch.tensor(loss_mask(len(prompt_ids), weights, max_length), dtype=torch.float32)
    return ids_L[None], mask_bits.encode(len(prompt_ids), mask_L)[None], mask_L[None]


def flag_stock(
    ids_1L: torch.Tensor, attention_mask_1L: torch.Tensor, loss_mask_1L: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Add flags to a row of the stock data set, as in `encode_row`: all tokens in its loss mask are trained."""
    trained_1L = (loss_mask_1L != 0).long()
    return (
        ids_1L,
        attention_mask_1L.long() * mask_bits.REAL + trained_1L * (mask_bits.LOSS | mask_bits.RESPONSE),
        loss_mask_1L,
    )


class CriticalTokenDataset(SFTDataset):
    """`openrlhf.datasets.SFTDataset` over annotated rows; its `collate_fn` and its place in the stock script are kept.

    Args:
        dataset: a `datasets.Dataset` with `prompt_token_ids`, `response_token_ids` and the mask column.
        tokenizer: the model's, for padding, display, and rows of text.
        max_length: each sequence is cut to this many tokens.
        strategy: OpenRLHF's; its flags say how rows of text are read.
        input_template, num_processors, multiturn: of the stock signature, for rows of text. Annotated rows may hold
            any number of turns: their ids and weights are used as they are.
        pretrain_mode: refused.
        mask_column: the column of weights.
        missing: how to treat a row without weights (see `arguments`).
        vocab_size: rows of the model's embeddings, all stored ids must be below it; None: not known.

    Raises:
        InputError: a mode is refused, a column is missing, a row is bad (it is named), a token id is outside the
            vocabulary, or no row has a trained token.
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
        missing: str = "error",
        vocab_size: int | None = None,
    ) -> None:
        Dataset.__init__(self)  # not SFTDataset's, which tokenizes text
        row_checks.refuse_pretraining(pretrain_mode)
        self.tokenizer = tokenizer
        self.strategy = strategy
        self.max_length = max_length
        self.mask_column = mask_column
        self.missing = missing
        self.columns = dataset.column_names
        row_checks.require_columns(self.columns, mask_column, "the data set", missing)
        if len(dataset) == 0:
            raise InputError("the data set has no rows")
        counts = self._count(dataset)
        row_checks.refuse_beyond("the data set", counts.largest_id, vocab_size)
        usable_R = counts.trained_R > 0
        self.rows = _select(dataset.select_columns(self._columns_to_read()), usable_R)
        text_R = np.flatnonzero(counts.kind_R == rows.TEXT)
        self.texts: Any = ()
        if len(text_R):
            self._require_text(dataset, text_R)
            texts = dataset.select(text_R)
            self.texts = SFTDataset(
                texts, tokenizer, max_length, strategy, input_template, pretrain_mode, num_processors, multiturn
            )
        self._report(counts)

    def _columns_to_read(self) -> list[str]:
        return row_checks.columns_to_read(self.columns, self.mask_column) or self.columns[:1]  # for the number of rows

    def _count(self, dataset: Any) -> rows.RowCounts:
        """Check and count all rows, a batch at a time."""
        view = dataset.select_columns(self._columns_to_read()).with_format("arrow")
        parts, first = [], 0
        for table in view.iter(batch_size=row_checks.ROWS_AT_ONCE):
            parts.append(rows.count_rows(table, self.mask_column, self.max_length, self.missing, first))
            first += len(table)
        kind_R, trained_R, response_R = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("kind_R", "trained_R", "response_R")
        )
        return rows.RowCounts(kind_R, trained_R, response_R, max(part.largest_id for part in parts))

    def _require_text(self, dataset: Any, text_R: np.ndarray) -> None:
        """Refuse rows that have neither weights nor ids nor text: the stock data set would silently leave them out.

        Args:
            dataset: all rows.
            text_R: (R,) int64, the numbers of the rows of text.
        """
        data = self.strategy.args.data
        keys = {"--data.input_key": getattr(data, "input_key", None)}
        keys["--data.output_key"] = getattr(data, "output_key", None)
        if keys["--data.output_key"] is None and not getattr(data, "apply_chat_template", False):
            raise InputError("rows without weights are trained on their text: name its column with --data.output_key")
        for flag, key in keys.items():
            if key is None:
                continue
            if key not in self.columns:
                raise InputError(
                    f"rows without weights need their text, and there is no column {key!r} ({flag}); the columns are "
                    f"{', '.join(sorted(self.columns))}"
                )
            column = dataset.select_columns([key]).with_format("arrow")[:].column(key)
            absent_R = text_R[column.take(text_R).is_null().to_numpy()]
            if len(absent_R):
                raise InputError(f"row number {absent_R[0]} has no weights and no text in column {key!r} ({flag})")

    def _report(self, counts: rows.RowCounts) -> None:
        """Set the counts that are logged, log them, and refuse a data set on which nothing would be trained."""
        usable_R = counts.trained_R > 0
        self.dropped = int((counts.kind_R == rows.DROPPED).sum())
        self.annotated = int(((counts.kind_R == rows.ANNOTATED) & usable_R).sum())
        self.unweighted = int(((counts.kind_R == rows.STORED) & usable_R).sum()) + len(self.texts)
        lost = int((counts.kind_R == rows.TEXT).sum()) - len(self.texts)
        self.skipped = len(usable_R) - lost - self.dropped - self.annotated - self.unweighted
        self.trained_tokens = int(counts.trained_R.sum())
        self.response_tokens = int(counts.response_R[usable_R].sum())
        if len(self) == 0:
            raise InputError(
                row_checks.no_trained_token("the data set", len(usable_R), self.mask_column, self.max_length)
            )
        share = self.trained_tokens / max(1, self.response_tokens)
        self.strategy.print(
            f"critical tokens: {len(self.rows)} rows, {self.trained_tokens} of {self.response_tokens} response tokens "
            f"trained ({share:.1%}); {self.skipped} rows skipped, none trained in them"
        )
        if self.unweighted or self.dropped or lost:
            self.strategy.print(
                f"rows without {self.mask_column!r}: {self.unweighted} trained on all response tokens, "
                f"{self.dropped} dropped, {lost} too long (--cft.missing {self.missing})"
            )

    def require_weights(self) -> None:
        """Refuse a data set without any row with weights: the column is misspelt, or the flag is a mistake.

        Raises:
            InputError: names the column, and the columns that exist.
        """
        if self.annotated == 0:
            raise InputError(
                f"--critical_mask: no row has weights in column {self.mask_column!r}; the columns are "
                f"{', '.join(sorted(self.columns))}"
            )

    def __len__(self) -> int:
        return len(self.rows) + len(self.texts)

    def __getitem__(self, idx: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Row `idx` of those that are not skipped, as `encode_row` returns it; rows of text come last."""
        if idx >= len(self.rows):
            return flag_stock(*self.texts[idx - len(self.rows)])
        row = self.rows[idx]
        response_ids = row[records.RESPONSE_IDS]
        weights = row.get(self.mask_column)
        if weights is None:
            weights = [1.0] * len(response_ids)
        return encode_row(row[records.PROMPT_IDS], response_ids, weights, self.max_length)


def _select(dataset: Any, which_R: np.ndarray) -> Any:
    return dataset if which_R.all() else dataset.select(np.flatnonzero(which_R))
