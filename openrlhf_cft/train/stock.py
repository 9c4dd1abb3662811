"""Runs the stock OpenRLHF SFT script with the three CFT classes in place of its own.

`openrlhf/cli/train_sft.py` imports what it uses by name, so it is enough to put a subclass under that name before the
script runs: no flag is copied, and none is lost. `tests/project/test_contract.py` pins every name.
"""

from __future__ import annotations

import functools
import runpy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import datasets
import openrlhf.datasets
import openrlhf.datasets.utils
import openrlhf.models
import openrlhf.trainer.sft_trainer
import openrlhf.utils
import openrlhf.utils.deepspeed  # before the substitution: its isinstance checks keep the stock Actor

from openrlhf_cft.errors import InputError
from openrlhf_cft.train import preflight
from openrlhf_cft.train.actor import CriticalTokenActor
from openrlhf_cft.train.arguments import Options
from openrlhf_cft.train.dataset import CriticalTokenDataset
from openrlhf_cft.train.trainer import CriticalTokenTrainer


def classes(options: Options, vocab_size: int | None = None) -> tuple[Any, Any, Any]:
    """The replacements for the stock SFTDataset, Actor and SFTTrainer; `vocab_size` as from `preflight.check`."""
    dataset = openrlhf.datasets.SFTDataset
    if options.column is not None:
        dataset = functools.partial(
            CriticalTokenDataset, mask_column=options.column, missing=options.missing, vocab_size=vocab_size
        )
    actor = functools.partial(CriticalTokenActor, dense_logits=options.dense_logits)
    return dataset, actor, functools.partial(CriticalTokenTrainer, options=options)


def prepare(args: Any, options: Options) -> tuple[Any, Any, Any]:
    """Run the checks, then return `classes`. For a patched OpenRLHF tree (`patches/optional/critical_mask.patch`).

    Args:
        args: the script's parsed and nested flags.

    Raises:
        InputError: the preflight refused the user's input. If nothing catches it, the script ends with its sentence.
    """
    sys.excepthook = _without_traceback
    return classes(options, preflight.check(args, options))


def _without_traceback(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """The exception hook of a script that is not ours: it prints an `InputError` as one sentence."""
    if issubclass(kind, InputError):
        print(f"train_sft: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def run(script: str, options: Options) -> None:
    """Run the stock script, a module's name, on `sys.argv`.

    Raises:
        InputError: the preflight or the data set refused the user's input.
    """
    with substituted(options):
        runpy.run_module(script, run_name="__main__", alter_sys=True)


@contextmanager
def substituted(options: Options) -> Iterator[None]:
    """Put the CFT classes under the stock names, where the stock script looks them up."""
    dataset, actor, trainer = classes(options)
    replacements: list[tuple[Any, str, Any]] = [
        (openrlhf.datasets, "SFTDataset", dataset),
        (openrlhf.models, "Actor", actor),
        (openrlhf.trainer.sft_trainer, "SFTTrainer", trainer),
        # The script's first call with its parsed flags, so the checks see exactly the values that it will use.
        (openrlhf.utils, "get_strategy", _checked(openrlhf.utils.get_strategy, options, dataset)),
        (datasets, "concatenate_datasets", _joined(datasets.concatenate_datasets)),
        (openrlhf.datasets.utils, "interleave_datasets", _joined(datasets.interleave_datasets)),
    ]
    stock = [getattr(module, name) for module, name, _ in replacements]
    for module, name, replacement in replacements:
        setattr(module, name, replacement)
    try:
        yield
    finally:
        for (module, name, _), original in zip(replacements, stock, strict=True):
            setattr(module, name, original)


def _checked(get_strategy: Callable[[Any], Any], options: Options, dataset: Any) -> Callable[[Any], Any]:
    @functools.wraps(get_strategy)
    def check_then_get_strategy(args: Any) -> Any:
        vocab_size = preflight.check(args, options)
        if options.column is not None:  # the script has imported `dataset` by now, so it is told, not replaced
            dataset.keywords["vocab_size"] = vocab_size
        return get_strategy(args)

    return check_then_get_strategy


def _joined(join: Callable[..., Any]) -> Callable[..., Any]:
    """`join` of `datasets`, with our message if a column has two types: weights are 32 bits in Parquet, 64 in JSON."""

    @functools.wraps(join)
    def join_or_refuse(*args: Any, **options: Any) -> Any:
        try:
            return join(*args, **options)
        except ValueError:
            if different := _two_types(args[0] if args else []):
                raise InputError(f"the data sets of --data.dataset cannot be joined: {different}") from None
            raise

    return join_or_refuse


def _two_types(parts: list[Any]) -> str:
    """The first column that the parts hold in different types, with these types; empty if there is none."""
    types: dict[str, set[str]] = {}
    for part in parts:
        for name, feature in (getattr(part, "features", None) or {}).items():
            types.setdefault(name, set()).add(str(feature))
    different = [
        f"column {name!r} is {' and '.join(sorted(kinds))}" for name, kinds in types.items() if len(kinds) > 1
    ]
    return different[0] if different else ""
