"""One engine for several checkpoints of a model: loading the next one's weights takes less time than another engine.

    shared = SharedEngine({"base": EngineSettings("runs/model"), "cft": EngineSettings("runs/cft")})
    async with shared.at("cft") as engine:
        generation = await engine.generate([1, 2, 3], Sampling(max_tokens=16))

An engine takes 20 to 40 s to start on a CPU, and weights take less than a second. Wrong weights would go unnoticed, so
engines are shared only where tests compare them with transformers: on CPUs, for the architectures of `RELOADED`, and
not quantized.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from openrlhf_cft.data.model_files import load_config, tensor_shapes
from openrlhf_cft.data.records import tokenizer_fingerprint
from openrlhf_cft.engine.platform import uses_gpu
from openrlhf_cft.engine.vllm_engine import EngineSettings, VllmGenerator
from openrlhf_cft.engine.vllm_reload import EXTENSION
from openrlhf_cft.errors import EngineError

RELOADED = frozenset({"Gemma3ForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})
# Engine arguments that have nothing to do with weights. Any other one, such as a quantization, needs its own engine.
HARMLESS = frozenset(
    {"block_size", "enable_prefix_caching", "enforce_eager", "max_num_batched_tokens", "max_num_seqs"}
)
# Of a configuration, what says something about the run that saved it. OpenRLHF sets the padding.
OF_A_RUN = ("_name_or_path", "transformers_version", "use_cache", "pad_token_id")
HEAD = "lm_head.weight"  # OpenRLHF saves it even where it is tied to the input embeddings


def sharing(engines: Mapping[str, EngineSettings]) -> list[dict[str, EngineSettings]]:
    """The checkpoints as groups of those that can share an engine, in their order.

    Args:
        engines: by the name of a checkpoint.

    Raises:
        InputError: a model cannot be loaded.
    """
    groups: dict[str, dict[str, EngineSettings]] = {}
    for name, settings in engines.items():
        kind = _kind(settings)
        key = f"alone: {name}" if kind is None else json.dumps(kind, sort_keys=True, default=str)
        groups.setdefault(key, {})[name] = settings
    return list(groups.values())


def _kind(settings: EngineSettings) -> dict[str, Any] | None:
    """What checkpoints must have in common to share an engine; None if this one can share none."""
    if uses_gpu() or not os.path.isdir(settings.model) or not settings.engine_args.keys() <= HARMLESS:
        return None
    config = load_config(settings.model).to_dict()
    architectures = config.get("architectures") or []
    if not RELOADED.issuperset(architectures) or not architectures or config.get("quantization_config"):
        return None
    # The engine's own data type comes before that in which a checkpoint was saved.
    saved_in = () if settings.resolved().get("dtype") is None else ("dtype", "torch_dtype")
    for name in (*OF_A_RUN, *saved_in):
        config.pop(name, None)
    # vLLM only logs that a checkpoint lacks a tensor, and the engine would keep that of the checkpoint before.
    shapes = tensor_shapes(settings.model)
    if shapes is None:
        return None  # an engine of its own says what is wrong
    if config.get("tie_word_embeddings"):
        shapes.pop(HEAD, None)
    tokenizer = settings.load_tokenizer()
    return {
        "settings": vars(replace(settings, model="", name="")),
        "config": config,
        "shapes": shapes,
        "tokenizer": [tokenizer_fingerprint(tokenizer), tokenizer.chat_template],
        "spaces": tokenizer.clean_up_tokenization_spaces,
        "stops": sorted(settings.stop_token_ids(tokenizer)),
    }


class SharedEngine:
    """An engine with the weights of one of several checkpoints at a time."""

    def __init__(self, engines: Mapping[str, EngineSettings]) -> None:
        """Start it with the first one.

        Args:
            engines: a group of `sharing`.

        Raises:
            EngineError: it does not start.
        """
        self._engines = dict(engines)
        self._loaded, first = next(iter(self._engines.items()))
        extension = {"worker_extension_cls": EXTENSION} if len(self._engines) > 1 else {}
        self.generator = VllmGenerator(replace(first, engine_args={**first.engine_args, **extension}))
        self._users = 0
        self._change = asyncio.Condition()
        self._broken = False

    @property
    def dead(self) -> bool:
        """Whether only a new engine can continue."""
        return self._broken or self.generator.dead

    @asynccontextmanager
    async def at(self, name: str) -> AsyncIterator[VllmGenerator]:
        """The engine with the weights of a checkpoint. Others wait until nobody uses these.

        Raises:
            JobError: the weights cannot be loaded.
            EngineError: the engine is dead.
        """
        async with self._change:
            await self._change.wait_for(lambda: self._broken or self._loaded == name or not self._users)
            if self._broken:
                raise EngineError("the engine may have weights of two checkpoints")
            if self._loaded != name:
                await self._load(name)
            self._users += 1
        try:
            yield self.generator
        finally:
            async with self._change:
                self._users -= 1
                self._change.notify_all()

    async def _load(self, name: str) -> None:
        """Change the weights. Nobody uses the engine meanwhile."""
        self._broken = True  # until all of them are there
        await self.generator.load(self._engines[name].model)
        self._loaded, self._broken = name, False
