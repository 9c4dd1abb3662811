"""Load the tokenizer that a data set's token ids belong to, and prove it by its fingerprint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from openrlhf_cft.data.annotated import AnnotatedData
from openrlhf_cft.data.model_files import FLAG, TRUST_REMOTE_CODE, first_line, require_model
from openrlhf_cft.data.records import tokenizer_fingerprint
from openrlhf_cft.data.token_meaning import differing_roles
from openrlhf_cft.errors import InputError

logger = logging.getLogger(__name__)


def load_tokenizer(model: str, flag: str = FLAG, named: bool = True, revision: str | None = None) -> Any:
    """A model's tokenizer; its weights need not be there.

    Args:
        model: a path or a hub name.
        flag: the flag that names the model on the command line, for messages.
        named: whether the user named the model. If only a data file names it, its own code is never run.
        revision: a revision of a hub repository; None: its main branch.

    Raises:
        InputError: names the flag and the model.
    """
    from transformers import AutoTokenizer

    require_model(model, flag, revision)
    try:
        code = TRUST_REMOTE_CODE and named
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision or "main", trust_remote_code=code)
    except Exception as error:  # a broken checkpoint, or its own code, may raise anything: the user sees it
        raise InputError(f"{flag}: cannot load the tokenizer of {model!r}: {first_line(error)}") from error
    if tokenizer.get_vocab().keys() <= tokenizer.added_tokens_encoder.keys():  # some architectures, without a file
        raise InputError(f"{flag}: cannot load the tokenizer of {model!r}: it has special tokens only")
    return tokenizer


def tokenizer_of(data: AnnotatedData, model: str | None = None) -> Any:
    """The tokenizer of a data set: of `model`, else of the model that its metadata names.

    Raises:
        InputError: no model is named, its tokenizer cannot be loaded, or it is not the tokenizer of the data set.
    """
    metadata = data.metadata
    name = model or metadata.get("model")
    if name is None:
        raise InputError(f"{FLAG}: the metadata of {data.name!r} names no model, so give it")
    tokenizer = load_tokenizer(name, named=model is not None)
    require_same(data, tokenizer, name)
    return tokenizer


def require_same(data: AnnotatedData, tokenizer: Any, name: str, flag: str = FLAG) -> None:
    """Refuse a tokenizer that gives a data set's ids another meaning, if the data set says which tokenizer made them.

    Raises:
        InputError: names both.
    """
    expected = fingerprint_of(data)
    if not means_the_same(expected, tokenizer, data.name):
        raise InputError(
            f"{flag}: the tokenizer of {name!r} (fingerprint {tokenizer_fingerprint(tokenizer)}) differs from the one "
            f"that {data.name!r} was annotated with (fingerprint {expected}): give that model"
        )


def means_the_same(fingerprint: str | None, tokenizer: Any, name: str) -> bool:
    """Whether a data set's token ids mean the same to a tokenizer. True if the data set's own tokenizer is not known.

    Special tokens may have other roles, as in a base model and its instruct model. A warning reports them.

    Args:
        fingerprint: of the data set's tokenizer; None: not known.
        tokenizer: the other one.
        name: of the data set, for the warning.
    """
    differences = [] if fingerprint is None else differing_roles(fingerprint, tokenizer)
    if differences:
        logger.warning("%s: its token ids mean the same to this tokenizer; %s", name, ", ".join(differences))
    return differences is not None


def require_one_tokenizer(inputs: Sequence[AnnotatedData]) -> None:
    """Refuse data sets whose token ids have different meanings, as far as they name their tokenizers.

    If fingerprints differ, the tokenizer of one of their models shows whether only special roles differ, as between a
    base model and its instruct model. If none of these models is here, the tokenizers count as different.

    Raises:
        InputError: names two of them.
    """
    named = [data for data in inputs if fingerprint_of(data)]
    if len({fingerprint_of(data) for data in named}) <= 1:
        return
    loaded = ((data, _own_tokenizer(data)) for data in named)
    first, own = next(((data, tokenizer) for data, tokenizer in loaded if tokenizer), (named[0], None))
    for data in named:
        if fingerprint_of(data) == fingerprint_of(first):
            continue
        if own is None or not means_the_same(fingerprint_of(data), own, data.name):
            why = "" if own else " as far as can be told (no model of theirs is here, to compare the vocabularies)"
            raise InputError(
                f"{first.name!r} (tokenizer fingerprint {fingerprint_of(first)}) and {data.name!r} "
                f"({fingerprint_of(data)}) have different tokenizers{why}; masks transfer carries one to the other's"
            )


def _own_tokenizer(data: AnnotatedData) -> Any | None:
    """The tokenizer of the model that a data set names; None if it is not here, or is no longer the same."""
    model = data.metadata.get("model")
    try:
        tokenizer = load_tokenizer(model, named=False) if model else None
    except InputError:
        return None
    return tokenizer if tokenizer and differing_roles(str(fingerprint_of(data)), tokenizer) is not None else None


def fingerprint_of(data: AnnotatedData) -> str | None:
    """The fingerprint of the data set's tokenizer; None if its metadata has none."""
    return data.metadata.get("tokenizer_fingerprint")


def tokenizer_if_any(data: AnnotatedData, model: str | None) -> tuple[Any | None, str]:
    """`tokenizer_of`, for figures that are optional: None and the reason, if the model of the metadata is not here.

    Raises:
        InputError: `model` is given and does not load, or the tokenizer is not that of the data set.
    """
    name = model or data.metadata.get("model")
    if name is None:
        return None, f"{data.name!r} names no model"
    try:
        tokenizer = load_tokenizer(name, named=model is not None)
    except InputError as error:
        if model is not None:
            raise
        return None, str(error)
    require_same(data, tokenizer, name)
    return tokenizer, ""
