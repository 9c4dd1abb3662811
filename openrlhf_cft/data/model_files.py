"""A model, by path or hub name: its configuration, whether there are weights, and which weights they are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from openrlhf_cft.errors import InputError

FLAG = "--model.model_name_or_path"
# As OpenRLHF loads every model: one whose code is its own can be trained, so it can be annotated and evaluated too.
TRUST_REMOTE_CODE = True
WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
CONFIGURATIONS = ("config.json", "tokenizer_config.json")
HUB_SECONDS = 10  # for the hub to say whether there is a model
PIECES, PIECE_BYTES = 64, 16 << 10  # of each file, evenly spread: a changed tensor is hit, a 7B model read in no time


def absolute(model: str) -> str:
    """A path as every process finds it, whatever its current directory; a hub name as it is."""
    return os.path.abspath(model) if os.path.isdir(model) else model


def require_model(model: str, flag: str = FLAG) -> None:
    """Refuse a name at once where there is no folder, and no hub in reach that loading would wait half a minute for.

    A hub name has one slash at most.

    Raises:
        InputError: names the flag and the model.
    """
    if os.path.exists(model):
        return
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise InputError(f"{flag}: cannot load {model!r}: there is no such folder")
    if not _hub_answers(model):
        raise InputError(f"{flag}: cannot load {model!r}: there is no such folder, and the model hub is not in reach")


def _hub_answers(model: str) -> bool:
    """Whether loading a hub name is worth a try: it is on this machine's disk, or the hub says anything about it."""
    import httpx
    from huggingface_hub import model_info, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        if not any(isinstance(try_to_load_from_cache(model, name), str) for name in CONFIGURATIONS):
            model_info(model, timeout=HUB_SECONDS)
    except (
        HfHubHTTPError,
        OfflineModeIsEnabled,
        ValueError,
    ):  # no such model, not for this user, no such name: loading
        return True  # says it best, and at once
    except (httpx.HTTPError, OSError):
        return False
    return True


def load_config(model: str, flag: str = FLAG, revision: str | None = None) -> Any:
    """A model's configuration; of a hub repository that of a branch, tag or commit.

    Raises:
        InputError: there is none, or a directory without weights; names the flag and the model.
    """
    from transformers import AutoConfig

    require_model(model, flag)
    try:
        config = AutoConfig.from_pretrained(model, revision=revision or "main", trust_remote_code=TRUST_REMOTE_CODE)
    except Exception as error:  # whatever a broken checkpoint, or its own code, raises: it is the user's to see
        raise InputError(f"{flag}: cannot load {model!r}: {first_line(error)}") from error
    if os.path.isdir(model) and not any(name.endswith(WEIGHTS) for name in os.listdir(model)):
        raise InputError(f"{flag}: cannot load {model!r}: it holds no weights ({', '.join(WEIGHTS)})")
    return config


def first_line(error: BaseException) -> str:
    """What an exception says, without what follows its first line."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def weights_fingerprint(model: str, flag: str = FLAG, revision: str | None = None) -> str:
    """A hash of a checkpoint's weights: of names, sizes and pieces of its files, or the commit of a hub repository.

    Args:
        model: a path or a hub name.
        flag: that names the model on the command line, for messages.
        revision: of a hub repository, where it is not the main branch.

    Returns:
        16 hexadecimal digits, or a commit.

    Raises:
        InputError: a hub name whose commit cannot be told, so that other weights would pass for these.
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
    """The commit of a hub repository that loading takes now."""
    commit = getattr(load_config(model, flag, revision), "_commit_hash", None)
    if commit is None:
        raise InputError(f"{flag}: cannot determine the commit of {model!r}: download it, and give its folder")
    return str(commit)
