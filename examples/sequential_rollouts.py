"""One greedy rollout after another with transformers: the rival of `bench_annotate.py`."""

from __future__ import annotations

import sys
import time
from typing import Any

from openrlhf_cft.engine.generate import Sampling


def sequential(model: str, requests: list[tuple[list[int], Sampling]], stops: frozenset[int], dtype: str) -> float:
    """Seconds of one greedy rollout with transformers, the mean over a sample; on a GPU where there is one."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(device).eval()
    started = 0.0
    for number, (ids, sampling) in enumerate([requests[0], *requests]):
        if number == 1:
            started = time.perf_counter()  # the first one only warms up
        given = torch.tensor([ids], device=device)
        loaded.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=sampling.max_tokens,
            do_sample=False,
            eos_token_id=sorted(stops),
            pad_token_id=min(stops),
        )
    each = (time.perf_counter() - started) / len(requests)
    print(f"bench: transformers in {dtype} on {device}: {each:.2f} s a rollout", file=sys.stderr, flush=True)
    return each
