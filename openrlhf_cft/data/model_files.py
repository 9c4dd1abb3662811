"""A model, by path or hub name: its configuration, whether there are weights, and which weights they are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from openrlhf_cft.errors import InputError

FLAG = "--model.model_name_or_path"
# OpenRLHF loads every model this way. A model with its own code can be trained, so we annotate and evaluate it too.
TRUST_REMOTE_CODE = True
WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
CONFIGURATIONS = ("config.json", "tokenizer_config.json")
HUB_SECONDS = 10  # limit for the hub to answer whether a model exists
PIECES, PIECE_BYTES = 64, 16 << 10  # of each file, evenly spread: they hit a changed tensor; a 7B model takes no time


def absolute(model: str) -> str:
    """The absolute path of a model folder, which is the same in every process; a hub name stays as it is."""
    return os.path.abspath(model) if os.path.isdir(model) else model


def require_model(model: str, flag: str = FLAG, revision: str | None = None) -> None:
    """Refuse a name at once if there is no such folder and no hub in reach. Loading would first wait half a minute.

    A hub name has at most one slash.

    Raises:
        InputError: names the flag and the model.
    """
    if os.path.exists(model):
        return
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise InputError(f"{flag}: cannot load {model!r}: there is no such folder")
    if not _hub_answers(model, revision):
        raise InputError(f"{flag}: cannot load {model!r}: there is no such folder, and the model hub is not in reach")


def _hub_answers(model: str, revision: str | None) -> bool:
    """Whether loading a hub name is worth a try: the model is on this machine's disk, or the hub answers."""
    from huggingface_hub import model_info, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        kept = (try_to_load_from_cache(model, name, revision=revision) for name in CONFIGURATIONS)
        if not any(isinstance(file, str) for file in kept):
            model_info(model, timeout=HUB_SECONDS)
    except (HfHubHTTPError, OfflineModeIsEnabled, ValueError):
        return True  # no such model, no access for this user, an invalid name: loading reports it best, and at once
    except Exception:  # of whichever HTTP library the hub's package has: no answer
        return False
    return True


def load_config(model: str, flag: str = FLAG, revision: str | None = None) -> Any:
    """A model's configuration; for a hub repository, at a branch, tag or commit.

    Raises:
        InputError: there is no configuration, or a directory has no weights; names the flag and the model.
    """
    from transformers import AutoConfig

    require_model(model, flag, revision)
    try:
        config = AutoConfig.from_pretrained(model, revision=revision or "main", trust_remote_code=TRUST_REMOTE_CODE)
    except Exception as error:  # a broken checkpoint, or its own code, may raise anything: the user sees it
        raise InputError(f"{flag}: cannot load {model!r}: {first_line(error)}") from error
    if os.path.isdir(model) and not any(name.endswith(WEIGHTS) for name in os.listdir(model)):
        raise InputError(f"{flag}: cannot load {model!r}: it holds no weights ({', '.join(WEIGHTS)})")
    return config


def parameter_count(model: str, flag: str = FLAG, revision: str | None = None) -> int:
    """The number of a model's parameters, from its configuration alone; tied weights count once.

    Raises:
        InputError: as `load_config`, or it is not a causal language model; names the flag and the model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = load_config(model, flag, revision)
    try:
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=TRUST_REMOTE_CODE)
    except Exception as error:  # of a model's own code, too
        raise InputError(f"{flag}: {model!r} is no language model that transformers knows: {error}") from error
    return sum(weight.numel() for weight in set(empty.parameters()))


def tensor_shapes(folder: str) -> dict[str, list[int]] | None:
    """The shape of each tensor in a checkpoint's safetensors files, by name; None if they cannot all be read.

    Args:
        folder: of the checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, list[int]] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as opened:
                shapes |= {name: list(opened.get_slice(name).get_shape()) for name in opened.keys()}
        except (OSError, SafetensorError):  # cut, or no such file
            return None
    return shapes or None


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; the name of its type if the message is empty."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def weights_fingerprint(model: str, flag: str = FLAG, revision: str | None = None) -> str:
    """A checkpoint's weights as a hash of its files' names, sizes and pieces, or as the commit of a hub repository.

    Args:
        model: a path or a hub name.
        flag: the flag that names the model on the command line, for messages.
        revision: a revision of a hub repository; None: its main branch.

    Returns:
        16 hexadecimal digits, or a commit.

    Raises:
        InputError: the commit of a hub name cannot be determined, so other weights could pass for these.
    """
    if not os.path.isdir(model):
        return _commit(model, flag, revision)
    digest = hashlib.sha256()
    for file in sorted(file for file in Path(model).iterdir() if file.name.endswith(WEIGHTS)):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as opened:
            for number in range(PIECES):
                opened.seek(number * max(0, size - PIECE_BYTES) // (PIECES - 1))
                digest.update(opened.read(PIECE_BYTES))
    return digest.hexdigest()[:16]


def _commit(model: str, flag: str, revision: str | None) -> str:
    """The commit of a hub repository that loading would use now."""
    commit = getattr(load_config(model, flag, revision), "_commit_hash", None)
    if commit is None:
        raise InputError(f"{flag}: cannot determine the commit of {model!r}: download it, and give its folder")
    return str(commit)
