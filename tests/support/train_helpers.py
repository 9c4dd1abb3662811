"""What the training tests share: a tiny model and tokenizer, annotated rows, launched processes that clean up.

Everything is made here; nothing is downloaded.
"""

from __future__ import annotations

import glob
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openrlhf_cft.curves import read_curves
from openrlhf_cft.data import records

VOCAB = 512
# The shape of a model in a test, for any architecture.
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": VOCAB,
}
TEXT = ["the sum of {} and {} is {}", "{} apples and {} pears make {} pieces of fruit", "count {} then {} then {}"]


def make_tokenizer(path: Path) -> Any:
    """Train a byte-level BPE tokenizer of at most 512 tokens and save it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([TEXT[i % 3].format(i, 2 * i, 3 * i) for i in range(300)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    fast.save_pretrained(path)
    return fast


def make_model(path: Path, tied: bool = False, seed: int = 0) -> Path:
    """Save a random Qwen2 (hidden 64, 2 layers, 512 tokens, float32) with the tokenizer beside it."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        **TINY,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.2,  # large, so that gradients are not all alike
        eos_token_id=1,
        pad_token_id=0,
        dtype="float32",
    )
    Qwen2ForCausalLM(config).save_pretrained(path)
    make_tokenizer(path)
    return path


def make_rows(count: int, seed: int = 0, critical: float = 0.3, floats: bool = False) -> list[dict[str, Any]]:
    """Rows of random token ids, each with at least one trained token."""
    import random

    rng = random.Random(seed)
    rows = []
    for index in range(count):
        response = [rng.randrange(2, VOCAB) for _ in range(rng.randint(3, 20))]
        weights = [float(rng.random() < critical) for _ in response]
        weights[rng.randrange(len(weights))] = 1.0
        if floats:
            weights = [weight * rng.uniform(0.1, 3.0) for weight in weights]
        rows.append(
            {
                records.ID: f"row-{index}",
                records.PROMPT_IDS: [rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 12))],
                records.RESPONSE_IDS: response,
                records.MASK: weights,
            }
        )
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]], metadata: dict[str, Any] | None = None) -> Path:
    """Write rows as an annotated data set: a directory with one Parquet file."""
    import json

    fields = records.annotation_fields(samples=any(records.SAMPLED in row for row in rows))
    names = list(rows[0]) if rows else [records.ID, records.PROMPT_IDS, records.RESPONSE_IDS, records.MASK]
    schema = pa.schema([(name, fields.get(name, pa.list_(pa.float32()))) for name in names])
    if metadata is not None:
        schema = schema.with_metadata({records.METADATA_KEY: json.dumps(metadata).encode()})
    path.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path / "part-0.parquet")
    return path


def make_training_folder(folder: Path) -> Path:
    """A model, and a data set of 24 rows with a trained token and 2 without, with the texts of the model's tokenizer.

    So the stock script can train on it too.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_model(folder / "model"))
    rows = make_rows(26)
    for row in rows:
        row[records.PROMPT] = tokenizer.decode(row[records.PROMPT_IDS])
        row[records.RESPONSE] = tokenizer.decode(row[records.RESPONSE_IDS])
    for row in rows[:2]:
        row[records.MASK] = [0.0] * len(row[records.MASK])
    write_rows(folder / "data", rows, {"tokenizer_fingerprint": records.tokenizer_fingerprint(tokenizer)})
    return folder


class Strategy:
    """The part of OpenRLHF's strategy that the data set touches: printing on rank 0."""

    def __init__(self) -> None:
        self.args = SimpleNamespace()
        self.printed: list[str] = []

    def print(self, *message: Any) -> None:
        self.printed.append(" ".join(str(part) for part in message))

    def is_rank_0(self) -> bool:
        return True


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def environment(tree: Path | None = None) -> dict[str, str]:
    """The environment of a training process on CPU; what the caller has set wins only for the compiled operators.

    `tree` is a folder whose packages come before those that are installed.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    return {
        **inherited,
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_EXTENSIONS_DIR": os.environ.get("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions")),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join(
            map(str, [*([tree] if tree else []), Path(__file__).parents[2], Path(__file__).parent])
        ),
        "COLUMNS": "200",
    }


def launch(
    arguments: Sequence[str], processes: int = 1, timeout: float = 600, tree: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `arguments` (a script, or `--module NAME`, and its flags) as the DeepSpeed launcher would, and wait.

    Several processes are the launcher's to start. One is started here with the launcher's variables, which saves its
    two imports of DeepSpeed. Whatever was started is ended, and its shared-memory buffers are removed.
    """
    port = free_port()
    launcher = [str(Path(sys.executable).parent / "deepspeed"), "--num_gpus", str(processes)]
    command = [*launcher, "--master_port", str(port), *arguments]
    if processes == 1:
        variables = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        module = ["-m", *arguments[1:]] if arguments[0] == "--module" else list(arguments)
        command = ["env", *(f"{name}={value}" for name, value in variables.items()), sys.executable, *module]
    try:
        return run_command(command, timeout, tree)
    finally:
        remove_buffers(port)


def remove_buffers(port: int) -> None:
    """Give back the shared memory that DeepSpeed on CPU leaves behind, 66 MiB a rank."""
    for leftover in glob.glob(f"/dev/shm/deepspeed_allreduce_buffer_{os.getuid()}_*_{port}_*"):
        os.unlink(leftover)


def run_command(
    command: Sequence[str], timeout: float = 600, tree: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in its own process group, which ends with it."""
    process = subprocess.Popen(
        command,
        env=environment(tree),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(list(command), process.returncode, stdout, stderr)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def tail(result: subprocess.CompletedProcess[str]) -> str:
    """The end of what a process printed, for an assertion's message."""
    return f"exit {result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"


def scalars(folder: Path) -> dict[str, list[float]]:
    """All TensorBoard scalars of the one run under a folder, by tag, in the order of their steps."""
    (run,) = {file.parent for file in folder.rglob("events.out.tfevents.*")}
    return {tag: curve.values for tag, curve in read_curves(run).items()}
