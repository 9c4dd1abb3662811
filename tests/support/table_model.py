"""A Llama whose next token depends on the last token alone, by a table: responses, masks and losses are known.

    table = Table.of(tokenizer, "Question: 1 + 1?\\n", "<|im_end|>")
    write_table_model(table, folder, stop_ids)          # a checkpoint for engines and training
    TableGenerator(table, stop_ids, tokenizer)          # the same model without an engine

The model answers every question with ":2". Its other choices decide the Strict-3 mask, where the gold answer is 2:

| behind | 1st choice | 2nd | 3rd | |
|---|---|---|---|---|
| the prompt | : | 2 | 3 | 2 is correct too, so the colon is not critical |
| the colon | 2 | 3 | 4 | 3 and 4 are wrong, so 2 is critical |
| any other token | the end | 3 | 4 | a further 3 or 4 makes a wrong answer, so the end is critical |
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from train_helpers import TINY

from openrlhf_cft.annotation.row_worker import AnnotateWorker, AnnotateWorkerFactory
from openrlhf_cft.data.location import Location
from openrlhf_cft.data.records import ID
from openrlhf_cft.data.source import NUMBER
from openrlhf_cft.data.tokenizer import load_tokenizer
from openrlhf_cft.engine.generate import Generation, Sampling
from openrlhf_cft.jobs.engine_actor import COUNTS, PAYLOAD, STATUS
from openrlhf_cft.jobs.finished_rows import Outcomes
from openrlhf_cft.verify.sandbox import VerifierPool

LOGITS = (8.0, 6.0, 4.0)  # of the first three choices; all other tokens have 0
CONTEXT = 512


@dataclass(frozen=True)
class Table:
    """The token ids of the table, and the size of the vocabulary."""

    start: int  # the last token of every prompt
    opening: tuple[int, ...]  # a colon behind the prompt; SentencePiece may put a token for a space before it
    two: int
    three: int
    four: int
    end: int  # of a response
    vocabulary: int  # of the model, which may have more ids than its tokenizer

    @classmethod
    def of(cls, tokenizer: Any, prompt: str, end: str) -> Table:
        """The table for a tokenizer and one prompt. The vocabulary is padded, as in Qwen's models."""
        two, three, four, last = (int(i) for i in tokenizer.convert_tokens_to_ids(["2", "3", "4", end]))
        before, said = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, f"{prompt}:2"))
        opening = tuple(said[len(before) : -1])
        assert said == [*before, *opening, two]
        return cls(before[-1], opening, two, three, four, last, vocabulary=-(-len(tokenizer) // 64) * 64)

    @property
    def colon(self) -> int:
        """The token of the colon."""
        return self.opening[-1]

    @property
    def response(self) -> list[int]:
        """The model's greedy response to every prompt."""
        return [*self.opening, self.two, self.end]

    def choices(self, previous: int) -> tuple[int, int, int]:
        """The three most probable tokens behind a token."""
        before = (self.start, *self.opening)
        if previous in before[:-1]:
            return self.opening[before.index(previous)], self.two, self.three
        if previous == self.colon:
            return self.two, self.three, self.four
        return self.end, self.three, self.four

    def logprob(self, previous: int, token: int) -> float:
        """The natural log-probability of a token behind another."""
        choices = self.choices(previous)
        logit = LOGITS[choices.index(token)] if token in choices else 0.0
        return logit - math.log(sum(map(math.exp, LOGITS)) + self.vocabulary - len(LOGITS))

    @property
    def entropy(self) -> float:
        """The entropy of the next token in nats, the same behind every token."""
        common = [self.logprob(self.start, token) for token in self.choices(self.start)]
        other = self.logprob(self.start, self.end)
        rest = self.vocabulary - len(LOGITS)
        return -sum(math.exp(value) * value for value in common) - rest * math.exp(other) * other

    def mask(self, response: Sequence[int]) -> list[float]:
        """The Strict-3 mask of a response that ends in the answer, 2; the module's docstring has the reasons."""
        before = [self.start, *response[:-1]]
        not_critical = [
            previous in (self.start, *self.opening[:-1]) or (previous == self.colon and token != self.two)
            for previous, token in zip(before, response, strict=True)
        ]
        return [float(not free) for free in not_critical]

    def nll(self, response: Sequence[int]) -> list[float]:
        """The negative log-likelihood of each response token."""
        before = [self.start, *response[:-1]]
        return [-self.logprob(previous, token) for previous, token in zip(before, response, strict=True)]


def write_table_model(table: Table, folder: Path, stops: Sequence[int]) -> None:
    """Save the table as a float32 Llama whose two layers add nothing to the embedding."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    size = table.vocabulary  # one dimension for each token
    shape = {**TINY, "hidden_size": size, "vocab_size": size}
    config = LlamaConfig(
        **shape,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=stops[0],
        pad_token_id=None,
        dtype="float32",
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size) * size**0.5)  # mean square 1: the norm keeps it
        model.lm_head.weight.zero_()
        for previous in range(size):
            for token, logit in zip(table.choices(previous), LOGITS, strict=True):
                model.lm_head.weight[token, previous] = logit / size**0.5
    model.generation_config.eos_token_id = list(stops)
    model.save_pretrained(folder)


class TableGenerator:
    """A `Generator` over the table, in place of an engine."""

    dead = False
    max_model_len = CONTEXT

    def __init__(self, table: Table, stops: frozenset[int], tokenizer: Any) -> None:
        self.table, self.stop_token_ids, self.tokenizer = table, stops, tokenizer
        self.vocabulary = frozenset(tokenizer.get_vocab().values())

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decode as `VllmGenerator.decode` does."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def close(self) -> None:
        """Do nothing: there is no process."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
        """Take the first choice at every step, or draw one of the first three."""
        ids, rng = list(token_ids), random.Random(sampling.seed)
        for _ in range(sampling.max_tokens):
            choices = self.table.choices(ids[-1])
            weights = (
                [math.exp(logit / sampling.temperature) for logit in LOGITS] if sampling.temperature else [1, 0, 0]
            )
            ids += rng.choices(choices, weights)
            if ids[-1] in self.stop_token_ids:
                break
        return self._of(ids, len(token_ids))

    async def score(self, token_ids: Sequence[int], start: int, top_logprobs: int) -> Generation:
        """Report the choices at each position of a given continuation."""
        return self._of(list(token_ids), start)

    def _of(self, ids: list[int], start: int) -> Generation:
        """The tokens from `start` on, with the three most probable ones at each position."""
        pairs = list(zip(ids[start - 1 : -1], ids[start:], strict=True))
        logprobs = [self.table.logprob(*pair) for pair in pairs]
        tops = [[(i, self.table.logprob(before, i)) for i in self.table.choices(before)] for before, _ in pairs]
        return Generation(ids[start:], ids[-1] in self.stop_token_ids, logprobs, tops)


@contextmanager
def without_engine(table: Table) -> Iterator[None]:
    """Let `annotate` run on a `TableGenerator` in this process. Only Ray and the engine are replaced."""

    def run(source: Location, outcomes: Outcomes, factory: AnnotateWorkerFactory, *_: Any) -> list[Any]:
        tokenizer = load_tokenizer(factory.engine.model)
        generator: Any = TableGenerator(table, factory.engine.stop_token_ids(tokenizer), tokenizer)
        worker = AnnotateWorker(generator, VerifierPool(**vars(factory.verifier)), factory.settings)
        rows = list(source.rows())

        async def work() -> list[Any]:
            return await asyncio.gather(*(worker.work(row) for row in rows))

        done = []
        for row, finished in zip(rows, asyncio.run(work()), strict=True):
            payload = json.dumps({**finished.payload, COUNTS: finished.counts})
            done.append({ID: row[ID], NUMBER: row[NUMBER], STATUS: finished.status, PAYLOAD: payload})
        worker.close()
        outcomes.data.make_dir()
        pq.write_table(pa.Table.from_pylist(done), f"{outcomes.data.path}/part-0.parquet")
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openrlhf_cft.jobs.run_job.run", run)
        yield
