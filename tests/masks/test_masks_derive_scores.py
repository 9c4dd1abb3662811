"""Columns that a model's scores select, through the command, against the definitions computed row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_token_scores import literal
from train_helpers import make_model, make_rows, make_tokenizer, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from openrlhf_cft.cli.masks import main
from openrlhf_cft.data.records import MASK, RESPONSE_IDS, read_metadata, read_rows, tokenizer_fingerprint
from openrlhf_cft.engine import token_scores

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return str(make_model(folder / "one", seed=0)), str(make_model(folder / "two", seed=1))


@pytest.fixture
def annotated(tmp_path: Path, models: tuple[str, str]) -> Path:
    fingerprint = tokenizer_fingerprint(AutoTokenizer.from_pretrained(models[0]))
    metadata = {"model": models[0], "tokenizer_fingerprint": fingerprint}
    return write_rows(tmp_path / "in", make_rows(12, floats=True), metadata)


def literals(model: str, rows: list[dict[str, Any]], measure: str) -> list[list[float]]:
    exact = AutoModelForCausalLM.from_pretrained(model, dtype="float64", attn_implementation="eager").eval()
    return [literal(exact, row, measure) for row in rows]


def check(weights: list[float], scores_T: list[float], count: int) -> None:
    """The selected ones are `count`, and none of the others has a higher score; within 1e-4, which is float32's."""
    assert set(weights) <= {0.0, 1.0} and sum(weights) == count
    chosen = [score for score, weight in zip(scores_T, weights, strict=True) if weight]
    others = [score for score, weight in zip(scores_T, weights, strict=True) if not weight]
    assert not chosen or not others or min(chosen) >= max(others) - 1e-4


def test_the_highest_scores_are_selected(annotated: Path, models: tuple[str, str], tmp_path: Path) -> None:
    hows = ["entropy", "attention", "excess_loss"]
    flags = ["--column", *hows, "--how", *hows, "--reference.model_name_or_path", models[1], "--batch_tokens", "50"]
    main(["derive", str(annotated), "--out", str(tmp_path / "out"), *flags])
    rows = list(read_rows(tmp_path / "out"))
    assert [row[MASK] for row in rows] == [row[MASK] for row in read_rows(annotated)]
    nll, reference_nll = literals(models[0], rows, "nll"), literals(models[1], rows, "nll")
    wanted = {how: literals(models[0], rows, how) for how in ("entropy", "attention")}
    wanted["excess_loss"] = [
        [a - b for a, b in zip(*pair, strict=True)] for pair in zip(nll, reference_nll, strict=True)
    ]
    for how in hows:
        for row, scores_T in zip(rows, wanted[how], strict=True):
            check(row[how], scores_T, sum(weight > 0 for weight in row[MASK]))
    assert len({str([row[how] for row in rows]) for how in hows}) == 3, "they select different tokens"
    metadata = read_metadata(tmp_path / "out")
    assert metadata is not None
    record = metadata["derived"]["excess_loss"]
    assert (record["how"], record["model"], record["reference_model"]) == ("excess_loss", *models)
    assert record["reference"] == MASK and record["dtype"] == "auto" and "torch" in record["versions"]


def test_a_share_of_the_tokens_needs_no_mask(annotated: Path, tmp_path: Path) -> None:
    main(
        [
            "derive",
            str(annotated),
            "--out",
            str(tmp_path / "out"),
            "--column",
            "x",
            "--how",
            "entropy",
            "--share",
            "0.25",
        ]
    )
    for row in read_rows(tmp_path / "out"):
        assert sum(row["x"]) == int(0.25 * len(row[RESPONSE_IDS]) + 0.5)


def test_equal_scores_go_to_the_earlier_token(annotated: Path, models: tuple[str, str], tmp_path: Path) -> None:
    """A model whose output embeddings are zero has the same entropy everywhere."""
    model = AutoModelForCausalLM.from_pretrained(models[0])
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained(tmp_path / "flat")
    make_tokenizer(tmp_path / "flat")
    flags = ["--column", "x", "--how", "entropy", "--model.model_name_or_path", str(tmp_path / "flat")]
    main(["derive", str(annotated), "--out", str(tmp_path / "out"), *flags])
    for row in read_rows(tmp_path / "out"):
        count = sum(weight > 0 for weight in row[MASK])
        assert row["x"] == [1.0] * count + [0.0] * (len(row[RESPONSE_IDS]) - count)


def test_a_model_with_another_tokenizer_is_refused_before_it_loads(
    annotated: Path, models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizer_families import unigram

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("it loads")

    monkeypatch.setattr(token_scores, "load_model", never)
    unigram().save_pretrained(tmp_path / "other")
    command = ["derive", str(annotated), "--out", str(tmp_path / "out"), "--column", "x", "--how", "excess_loss"]
    with pytest.raises(ValueError, match=r"--how excess_loss needs --reference\.model_name_or_path"):
        main(command)
    with pytest.raises(ValueError, match=r"--reference\.model_name_or_path: the tokenizer of .*other"):
        main([*command, "--reference.model_name_or_path", str(tmp_path / "other")])
    with pytest.raises(ValueError, match=r"--model\.model_name_or_path: the tokenizer of .*other"):
        main(
            [
                *command,
                "--reference.model_name_or_path",
                models[1],
                "--model.model_name_or_path",
                str(tmp_path / "other"),
            ]
        )
    with pytest.raises(ValueError, match=r"--reference\.model_name_or_path: .*two is unused by numbers"):
        main([*command[:-1], "numbers", "--reference.model_name_or_path", models[1]])
    with pytest.raises(ValueError, match="no column 'nowhere'"):
        main([*command, "--reference.model_name_or_path", models[1], "--reference", "nowhere"])
