"""Changes the weights of a real engine, and compares its log-probabilities with transformers.

Started by `test_shared_engine.py`:

    python reload_script.py ARCHITECTURE FOLDER

Prints one JSON object: for each use of a checkpoint, the largest difference from transformers with its weights, and
from transformers with those of the other checkpoint.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from train_helpers import TINY, VOCAB, make_tokenizer

from openrlhf_cft.engine.generate import Sampling
from openrlhf_cft.engine.shared_engine import SharedEngine
from openrlhf_cft.engine.vllm_engine import EngineSettings

PROMPT = [7, 300, 21, 45, 190, 33, 81]
LENGTH = 24


def make(architecture: str, tied: bool, seed: int, path: Path) -> Path:
    """A random checkpoint of an architecture."""
    import torch
    import transformers

    torch.manual_seed(seed)
    model_class = getattr(transformers, architecture)
    settings = {**TINY, "max_position_embeddings": 512, "initializer_range": 0.2, "dtype": "float32"}
    config = model_class.config_class(**settings, tie_word_embeddings=tied, eos_token_id=1, pad_token_id=0)
    model = model_class(config)
    for parameter in model.parameters():  # norms and biases begin as constants
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(path)
    make_tokenizer(path)
    return path


def log_probs(model: Path, ids: list[int]) -> Any:
    """Of each token after the prompt, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = loaded(torch.tensor([PROMPT + ids])).logits[0, len(PROMPT) - 1 : -1]
    return torch.log_softmax(logits, -1)[torch.arange(len(ids)), torch.tensor(ids)]


async def compare(shared: SharedEngine, name: str, models: dict[str, Path]) -> list[float]:
    """Of one use of a checkpoint: see the text of this file."""
    import torch

    async with shared.at(name) as engine:
        own = await engine.generate(PROMPT, Sampling(LENGTH, top_logprobs=1))
        given = [(7 * i) % (VOCAB - 2) + 2 for i in range(LENGTH)]
        scored = await engine.score(PROMPT + given, len(PROMPT), 1)
    found = torch.tensor(own.logprobs + scored.logprobs)
    (other,) = models.keys() - {name}
    expected = (torch.cat([log_probs(models[n], ids) for ids in (own.token_ids, given)]) for n in (name, other))
    return [float((found - values).abs().max()) for values in expected]


async def run(architecture: str, folder: Path) -> dict[str, list[float]]:
    found = {}
    for tied, dtype in ((True, "float32"), (False, "float32"), (True, "bfloat16")):
        models = {name: make(architecture, tied, seed, folder / f"{name}{tied}") for seed, name in enumerate("ab")}
        shared = SharedEngine({name: EngineSettings(str(path), dtype=dtype) for name, path in models.items()})
        for number, name in enumerate("aba"):
            found[f"{dtype} tied={tied} {number} {name}"] = await compare(shared, name, models)
        shared.generator.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(sys.argv[1], Path(sys.argv[2])))))
