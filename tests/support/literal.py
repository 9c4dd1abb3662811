"""Strict-k as one would write it first: transformers, one rollout at a time, every alternative, nothing shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LiteralRow:
    """What the slow reference says of one prompt."""

    response_ids: list[int]
    mask: list[float]
    alternatives: list[list[int]]  # token ids, by rank
    gap: float  # smallest difference of two logits that decided anything: a near-tie is below about 1e-4


class Literal:
    """The slow reference over one model on CPU in float32."""

    def __init__(
        self,
        path: str,
        judge: Callable[[str, str], bool],
        top_k: int,
        max_new_tokens: int,
        stop: Sequence[str] = (),
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.judge, self.top_k, self.budget = judge, top_k, max_new_tokens
        self.gap, self.stop = float("inf"), stop

    def row(self, prompt_ids: Sequence[int], answer: str) -> LiteralRow:
        """The greedy response and the verdict on each of its tokens."""
        self.gap = float("inf")
        prompt = list(prompt_ids)
        response = self.cut(self.greedy(prompt, self.budget))
        assert self.correct(response, answer)
        mask, alternatives = [], []
        for position, chosen in enumerate(response):
            prefix = response[:position]
            others = self.others(prompt + prefix, chosen)
            outcomes = []
            for token in others:
                changed = [*prefix, token]
                if token != self.tokenizer.eos_token_id:
                    changed += self.greedy(prompt + changed, self.budget - len(changed))
                outcomes.append(self.correct(self.cut(changed), answer))
            mask.append(float(not any(outcomes)))
            alternatives.append(others)
        return LiteralRow(response, mask, alternatives, self.gap)

    def others(self, ids: list[int], chosen: int) -> list[int]:
        """The first k - 1 tokens other than `chosen`, by logit, ties to the smaller id."""
        with self.torch.no_grad():
            logits = self.model(self.torch.tensor([ids])).logits[0, -1].double()
        order = self.torch.argsort(-logits, stable=True)[: self.top_k + 1]
        values = logits[order]
        self.gap = min(self.gap, float((values[:-1] - values[1:]).min()))
        return [int(i) for i in order if int(i) != chosen][: self.top_k - 1]

    def greedy(self, ids: list[int], budget: int) -> list[int]:
        """Up to `budget` further tokens, the stop token included."""
        if budget < 1:
            return []
        given = self.torch.tensor([ids])
        with self.torch.no_grad():
            out = self.model.generate(
                given,
                attention_mask=self.torch.ones_like(given),
                max_new_tokens=budget,
                do_sample=False,
                eos_token_id=self.tokenizer.eos_token_id,
                pad_token_id=self.tokenizer.eos_token_id,
                output_logits=True,
                return_dict_in_generate=True,
            )
        for logits in out.logits:
            best = logits[0].topk(2).values
            self.gap = min(self.gap, float(best[0] - best[1]))
        return [int(i) for i in out.sequences[0, len(ids) :]]

    def cut(self, response: list[int]) -> list[int]:
        """Up to the token that completes the first stop string."""
        for length in range(1, len(response) + 1):
            text = self.tokenizer.decode(response[:length], skip_special_tokens=True)
            if any(string in text for string in self.stop):
                return response[:length]
        return response

    def correct(self, response: list[int], answer: str) -> bool:
        """Whether the text of a response, cut off or not, has the gold answer."""
        return self.judge(self.tokenizer.decode(response, skip_special_tokens=True), answer)
