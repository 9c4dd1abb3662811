"""Flags shared by the commands, named as in OpenRLHF, and the two habits that all commands have.

`data_flags` and `engine_flags` add arguments; `source_settings`, `engine_settings` and `pool_settings` read them back.
"""

from __future__ import annotations

import argparse
import math
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from openrlhf_cft import log
from openrlhf_cft.data.literal_text import SPECIAL_TOKENS
from openrlhf_cft.data.location import Location, location
from openrlhf_cft.data.model_files import absolute
from openrlhf_cft.data.source import ADD_BOS, SourceSettings
from openrlhf_cft.engine.vllm_arguments import parse_engine_args
from openrlhf_cft.engine.vllm_engine import EngineSettings
from openrlhf_cft.errors import InputError, JobError
from openrlhf_cft.jobs.pipeline import PoolSettings
from openrlhf_cft.verify import VERIFIERS
from openrlhf_cft.verify.settings import VerifierSettings

HEAVY = ("torch", "ray", "vllm")  # that masks, views and verdicts do without
DTYPES = ("auto", "bfloat16", "float16", "float32")
# What `VerifierSettings` calls them, and the command line.
VERIFIER_FLAGS = {
    "threshold": "threshold",
    "workers": "verifier_workers",
    "time_limit": "verifier_time_limit",
    "memory_limit": "verifier_memory",
}
# Of the groups in which a help shows the flags, by what stands before the dot in a flag's name.
GROUPS = {
    "model": "model",
    "reference": "reference model",
    "data": "data",
    "annotate": "annotation",
    "eval": "evaluation",
    "vllm": "vLLM engines",
    "ray": "Ray",
    "train": "randomness",
    "ckpt": "output",
}


class Help(argparse.RawDescriptionHelpFormatter):
    """Help with the default of each flag that has one, and an example that stays as it is written."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        shown = not isinstance(action.default, (bool, list, tuple)) and action.default not in (None, argparse.SUPPRESS)
        named = action.option_strings and "default" not in text
        return f"{text} (default: %(default)s)" if shown and named else text


class LogLevel(argparse.Action):
    """Sets the level as soon as the flag is read: the flags after it may be what there is to log about."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """See `argparse.Action`."""
        log.show(values)


class Parser(argparse.ArgumentParser):
    """A parser of a command or a verb: what is wrong with a flag is bad input like any other, said in one sentence.

    The help shows flags in the groups of `GROUPS`, and ends with an example.
    """

    def __init__(self, *, example: str = "", **options: Any) -> None:
        self._prefixes: dict[str, argparse._ArgumentGroup] = {}
        epilog = f"example:\n  {example}" if example else None
        super().__init__(formatter_class=Help, epilog=epilog, allow_abbrev=False, **options)
        least = f"least important messages that standard error shows (default: {log.DEFAULT})"
        super().add_argument("--log_level", choices=log.LEVELS, default=argparse.SUPPRESS, action=LogLevel, help=least)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """Add a flag to the group of its prefix."""
        prefix, dot, last = names[0].lstrip("-").partition(".")
        if dot and "action" not in options and "choices" not in options:
            options.setdefault("metavar", last.upper())
        if not dot:
            return super().add_argument(*names, **options)
        if prefix not in self._prefixes:
            self._prefixes[prefix] = self.add_argument_group(GROUPS[prefix])
        return self._prefixes[prefix].add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        """Raises InputError, without the page of usage that argparse prints first."""
        raise InputError(f"{message.removeprefix('argument ')}; --help lists the flags")


def data_flags(parser: argparse.ArgumentParser) -> None:
    """`--data.*`, as in OpenRLHF's prompt data sets."""
    kinds = "hub name, directory, .json, .jsonl, .csv or .parquet; several: a,b"
    parser.add_argument("--data.dataset", required=True, help=kinds)
    parser.add_argument("--data.dataset_split", default="train", help="split of a data set that has several")
    parser.add_argument("--data.input_key", default="input", help="column of the question, or of its chat messages")
    parser.add_argument("--data.label_key", default="label", help="column of the gold answer")
    parser.add_argument("--data.id_key", default=None, help="column of a unique id; default `id`, else the row number")
    parser.add_argument("--data.apply_chat_template", action="store_true", help="render with the tokenizer's template")
    parser.add_argument(
        "--data.input_template", default=None, help="prompt text; {} is the question: $'User: {}\\nAssistant: '"
    )
    token_flags(parser)
    parser.add_argument("--data.max_samples", type=int, default=1_000_000, help="rows to take, from the first on")


def token_flags(parser: argparse.ArgumentParser) -> None:
    """`--data.add_bos` and `--data.special_tokens`."""
    auto = "auto: add BOS once where the tokenizer adds it to plain text (Llama, Gemma); never: add none"
    parser.add_argument("--data.add_bos", choices=ADD_BOS, default="auto", help=auto)
    written = (
        "treat <|im_end|> and other special tokens in the data as text or control; auto: text, but stop if most "
        "prompts look already rendered"
    )
    parser.add_argument("--data.special_tokens", choices=SPECIAL_TOKENS, default="auto", help=written)


def engine_flags(parser: argparse.ArgumentParser) -> None:
    """`--vllm.*`, `--ray.*`, `--train.seed` and `--ckpt.output_dir`."""
    parser.add_argument("--vllm.num_engines", type=int, default=1, help="engines that share the rows")
    parser.add_argument("--vllm.tensor_parallel_size", type=int, default=1, help="GPUs of one engine")
    share = "share of a GPU's memory that an engine takes, above 0 and at most 1"
    parser.add_argument("--vllm.gpu_memory_utilization", type=float, default=0.9, help=share)
    auto = "auto: as the checkpoint, or float32 on a CPU without AVX-512; float32: reproducible masks"
    parser.add_argument("--vllm.dtype", default="auto", choices=DTYPES, help=auto)
    length = "most tokens of prompt plus response; default: the model's context length"
    parser.add_argument("--vllm.max_model_len", type=int, default=None, help=length)
    parser.add_argument("--vllm.engine_args", default=None, help="JSON object of further vLLM engine arguments")
    parser.add_argument("--vllm.rows_in_flight", type=int, default=64, help="rows that one engine works on at a time")
    parser.add_argument(
        "--ray.address", default=None, help="a running cluster; default: RAY_ADDRESS, else a local Ray"
    )
    parser.add_argument("--train.seed", type=int, default=42, help="of samples and random choices")
    parser.add_argument("--ckpt.output_dir", required=True, help="a path, or a URI such as s3://bucket/annotated")


def stop_flag(parser: argparse.ArgumentParser, group: str) -> None:
    """`--GROUP.stop`."""
    parser.add_argument(
        f"--{group}.stop",
        nargs="+",
        default=(),
        metavar="STRING",
        help="strings that end a response, as base models need that never end their turn: $'\\nQuestion:'",
    )


def verifier_flags(parser: argparse.ArgumentParser, group: str) -> None:
    """`--GROUP.verifier`, its threshold and limits."""
    known = ", ".join(sorted(VERIFIERS))
    parser.add_argument(
        f"--{group}.verifier", default="math", help=f"{known}, or a Python file with OpenRLHF's reward_func"
    )
    parser.add_argument(
        f"--{group}.threshold", type=float, default=0.5, help="smallest score of such a file that counts as correct"
    )
    parser.add_argument(f"--{group}.verifier_workers", type=int, default=2, help="verifier processes per engine")
    parser.add_argument(
        f"--{group}.verifier_time_limit",
        type=float,
        default=None,
        help="seconds per response; default 5 (CPU), for a file 60 (wall clock)",
    )
    parser.add_argument(
        f"--{group}.verifier_memory", type=float, default=None, help="GiB per process; default 1, for a file 16"
    )


def verifier_settings(flags: dict[str, object], group: str) -> VerifierSettings:
    """The `--GROUP.verifier…` flags.

    Raises:
        InputError: names what is wrong with one of them.
    """
    gib: Any = flags[f"{group}.verifier_memory"]
    if gib is not None and not 0 < gib < math.inf:
        raise InputError(f"--{group}.verifier_memory: {gib:g} is no size above 0")
    settings = VerifierSettings(
        str(flags[f"{group}.verifier"]),
        threshold=flags[f"{group}.threshold"],  # type: ignore[arg-type]
        workers=flags[f"{group}.verifier_workers"],  # type: ignore[arg-type]
        time_limit=flags[f"{group}.verifier_time_limit"],  # type: ignore[arg-type]
        memory_limit=None if gib is None else int(gib * 2**30),
    )
    try:
        return settings.checked()
    except ValueError as error:
        name, _, wrong = str(error).partition(" is ")
        flag = VERIFIER_FLAGS.get(name)
        raise InputError(f"--{group}.{flag}: {wrong}" if flag else f"--{group}.verifier: {error}") from None


def output_place(flags: dict[str, object]) -> Location:
    """`--ckpt.output_dir`, absolute, because a cluster's workers have other current directories.

    Raises:
        InputError: a URI that pyarrow cannot reach.
    """
    try:
        return location(str(flags["ckpt.output_dir"]))
    except InputError as error:
        raise InputError(f"--ckpt.output_dir: {error}") from None


def source_settings(flags: dict[str, object]) -> SourceSettings:
    """The `--data.*` flags."""
    names = SourceSettings.__dataclass_fields__
    given = {name: flags[f"data.{name}"] for name in names if f"data.{name}" in flags}
    return SourceSettings(**given)  # type: ignore[arg-type]


def engine_settings(flags: dict[str, object], model: str) -> EngineSettings:
    """The engine's `--vllm.*` flags, for one model.

    Raises:
        InputError: names a flag and its value.
    """
    memory: Any = flags["vllm.gpu_memory_utilization"]
    length: Any = flags["vllm.max_model_len"]
    if not 0 < memory <= 1:
        raise InputError(f"--vllm.gpu_memory_utilization: {memory:g} must be above 0 and at most 1")
    if length is not None and length < 1:
        raise InputError(f"--vllm.max_model_len: {length} must be at least 1")
    return EngineSettings(
        model=absolute(model),
        name=model,
        dtype=str(flags["vllm.dtype"]),
        tensor_parallel_size=flags["vllm.tensor_parallel_size"],  # type: ignore[arg-type]
        gpu_memory_utilization=memory,
        max_model_len=length,
        seed=flags["train.seed"],  # type: ignore[arg-type]
        engine_args=parse_engine_args(flags["vllm.engine_args"]),  # type: ignore[arg-type]
        chat=bool(flags["data.apply_chat_template"]),
    )


def pool_settings(flags: dict[str, object], engine: EngineSettings) -> PoolSettings:
    """The pool's `--vllm.*` and `--ray.*` flags, for engines like this one."""
    engines: Any = flags["vllm.num_engines"]
    return PoolSettings(
        engines,
        engine.gpus,
        flags["vllm.rows_in_flight"],  # type: ignore[arg-type]
        flags["ray.address"],  # type: ignore[arg-type]
        engines > 1 and engine.may_share_gpus,
    )


def run_command(name: str, command: Callable[[], int], resumes: bool = True) -> None:
    """Run a command: bad input ends in one sentence and exit code 2, a job that cannot go on in 1, Ctrl-C in 130.

    A file that cannot be read or written is bad input where the command starts anew anyway, and keeps a job from going
    on where it resumes. Anything else is a fault of ours: it keeps its traceback, and ends with 1.

    Args:
        name: of the command, before what is said.
        command: returns the exit code.
        resumes: whether the same command resumes where it stopped. Otherwise it leaves nothing behind.
    """
    log.show()
    try:
        code = command()
    except InputError as error:
        log.say(f"{name}: {error}")
        code = 2
    except (JobError, OSError) as error:
        kept = "finished rows are kept; run the same command to resume" if resumes else "nothing was written"
        log.say(f"{name}: {error}; {kept}")
        code = 1 if resumes or isinstance(error, JobError) else 2
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in HEAVY:
            missing = f"{error.name} is not installed: pip install 'openrlhf-cft[train,annotate]'"
            log.say(f"{name}: {missing}")
            code = 2
        else:
            log.say(traceback.format_exc().rstrip())
            log.say(f"{name}: this is a bug in openrlhf_cft, please report it with the lines above")
            code = 1
    except KeyboardInterrupt:
        left = "run the same command to resume" if resumes else "nothing was written"
        log.say(f"{name}: interrupted; {left}")
        code = 130
    sys.exit(code)
