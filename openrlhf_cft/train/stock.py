"""Runs the stock OpenRLHF SFT script with the three CFT classes in place of its own.

`openrlhf/cli/train_sft.py` imports what it uses by name, so putting a subclass under that name before it runs is all
it takes: no flag is copied, and none is lost. `tests/test_contract.py` pins every name.
"""

from __future__ import annotations

import functools
import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openrlhf.datasets
import openrlhf.models
import openrlhf.trainer.sft_trainer
import openrlhf.utils
import openrlhf.utils.deepspeed  # before the substitution: its isinstance checks keep the stock Actor

from openrlhf_cft.train import preflight
from openrlhf_cft.train.actor import CriticalTokenActor
from openrlhf_cft.train.dataset import CriticalTokenDataset
from openrlhf_cft.train.trainer import CriticalTokenTrainer


def run(script: str, column: str) -> None:
    """Run the stock script, a module's name, on `sys.argv`, training on the weights in `column`.

    Raises:
        InputError: the preflight or the data set refused what the user gave.
    """
    with substituted(column):
        runpy.run_module(script, run_name="__main__", alter_sys=True)


@contextmanager
def substituted(column: str) -> Iterator[None]:
    """The CFT classes under the stock names, where the stock script looks them up."""
    replacements: list[tuple[Any, str, Any]] = [
        (openrlhf.datasets, "SFTDataset", functools.partial(CriticalTokenDataset, mask_column=column)),
        (openrlhf.models, "Actor", CriticalTokenActor),
        (openrlhf.trainer.sft_trainer, "SFTTrainer", CriticalTokenTrainer),
        # The first thing that the script calls with its parsed flags: the checks see exactly what it will use.
        (openrlhf.utils, "get_strategy", _checked(openrlhf.utils.get_strategy, column)),
    ]
    stock = [getattr(module, name) for module, name, _ in replacements]
    for module, name, replacement in replacements:
        setattr(module, name, replacement)
    try:
        yield
    finally:
        for (module, name, _), original in zip(replacements, stock, strict=True):
            setattr(module, name, original)


def _checked(get_strategy: Callable[[Any], Any], column: str) -> Callable[[Any], Any]:
    @functools.wraps(get_strategy)
    def check_then_get_strategy(args: Any) -> Any:
        preflight.check(args, column)
        return get_strategy(args)

    return check_then_get_strategy
