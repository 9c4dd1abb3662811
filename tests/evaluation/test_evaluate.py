"""The evaluation job with a scripted pipeline and real checkpoints of a tiny model: report and refusals.

Only the engine is not real here; `test_end_to_end.py` has one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripted_pipeline import HOSTILE, QUESTIONS, SAMPLES, Page, ScriptedPipeline, arguments, questions
from train_helpers import make_rows, write_rows

from openrlhf_cft import display
from openrlhf_cft.cli.evaluate import job_of
from openrlhf_cft.data.location import location
from openrlhf_cft.data.records import MASK, read_metadata, read_rows
from openrlhf_cft.evaluation import page, report
from openrlhf_cft.evaluation.job import evaluate
from openrlhf_cft.evaluation.samples import read_questions
from openrlhf_cft.evaluation.text_report import tables


def test_everything_that_is_reported(
    models: dict[str, Path], annotated: Path, pipeline: ScriptedPipeline, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    data = f"{questions(tmp_path / 'test.jsonl')},{questions(tmp_path / 'other.jsonl', 5)}"
    flags = arguments(models, data, out, "--eval.annotated", str(annotated), "--eval.entropy_positions", "60")
    found = evaluate(job_of(flags))
    assert found == json.loads((out / "metrics.json").read_text())
    asked = {f"{data_set}/{name}": count for name in models for data_set, count in (("test", QUESTIONS), ("other", 5))}
    assert pipeline.calls == [asked], "engines start once"

    assert list(found["results"]) == ["test", "other"] and list(found["results"]["test"]) == list(models)
    for checkpoint, result in found["results"]["test"].items():
        assert (result["questions"], result["too_long"], result["failed"]) == (5, 1, 0)
        figures = result["figures"]
        asked = list(read_questions(location(out / "samples" / f"test--{checkpoint}.parquet")))
        assert figures["accuracy"]["value"] == sum(q.greedy.correct for q in asked) / 5
        assert {"pass@1", "pass@4", "majority@2", "majority@4", "entropy"} <= set(figures)
        assert "pass@8" not in figures and all(f["low"] <= f["value"] <= f["high"] for f in figures.values())
        assert 60 <= result["entropy_positions"] < 80
        parts = result["entropy_by_position"]
        assert sum(part["positions"] for part in parts) == result["entropy_positions"]
        weighed = sum(part["positions"] * part["value"] for part in parts) / result["entropy_positions"]
        assert weighed == pytest.approx(figures["entropy"]["value"])
    pairs = [(pair["from"], pair["to"]) for pair in found["differences"]["test"]]
    assert pairs == [("base", "sft"), ("base", "cft"), ("sft", "cft")]
    sft, base = (found["results"]["test"][name]["figures"]["pass@1"]["value"] for name in ("sft", "base"))
    assert found["differences"]["test"][0]["figures"]["pass@1"]["value"] == pytest.approx(sft - base)
    assert found["annotated"]["positions"] >= 60
    assert set(found["annotated"]["figures"]["cft"]) == {
        "critical_entropy",
        "other_entropy",
        "critical_nll",
        "other_nll",
    }

    printed = tables(found)
    assert "test: 5 questions (1 too long for the model), 4 samples each at temperature 1; entropy at" in printed
    assert "McNemar's exact p" in printed and "cft - base" in printed and "entropy, critical tokens" in printed

    rows = list(read_rows(out / "samples"))
    assert len(rows) == 3 * (5 + 4) * (1 + SAMPLES)
    assert sorted({row["number"] for row in rows if not row["greedy"]}) == list(range(SAMPLES))
    assert all(row["length"] == len(row["response_token_ids"]) for row in rows)

    images = sorted(file.name for file in (out / "plots").glob("*.png"))
    of_each = [f"{kind}-{name}.png" for kind in ("differences", "entropy", "passes") for name in ("other", "test")]
    assert images == ["critical.png", *of_each]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in (out / "plots").iterdir())
    text = (out / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and page.tags.count("img") == page.tags.count("source") == 7
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.loaded)
    assert "@import" not in text and "url(" not in text, "the style loads something"
    shown = HOSTILE.replace("\u202e", "⟨U+202E⟩")
    assert any(shown in part for part in page.text), "a response is not shown as it is"
    assert "\u202e" not in text, "a mark turns the text behind it around"


@pytest.mark.parametrize("character", "\u200b\ufeff\u2060\u3164\u2028\U000e0041\u202e\x07")
def test_the_page_marks_what_cannot_be_seen(character: str) -> None:
    assert page.visible(f"a{character}b\n\tc") == f"a{display.mark(character)}b\n\tc"


def test_checkpoints_without_a_common_question(
    models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path
) -> None:
    pipeline.short = {"sft"}
    data, flags = str(questions(tmp_path / "test.jsonl")), ["--eval.entropy_positions", "0"]
    found = evaluate(job_of(arguments(models, data, tmp_path / "out", *flags)))
    assert [pair["questions"] for pair in found["differences"]["test"]] == [0, 5, 0]
    assert (tmp_path / "out" / "report.html").exists() and "cft - base" in tables(found)


def test_annotated_rows_are_looked_at_first(
    models: dict[str, Path], annotated: Path, pipeline: ScriptedPipeline, tmp_path: Path
) -> None:
    data, out = str(questions(tmp_path / "test.jsonl")), tmp_path / "out"
    rows = make_rows(2)
    rows[1][MASK] = rows[1][MASK][:-1]
    stated = {"tokenizer_fingerprint": (read_metadata(annotated) or {})["tokenizer_fingerprint"]}
    cut = write_rows(tmp_path / "cut", rows, stated)
    with pytest.raises(ValueError, match=r"--eval.annotated: row 'row-1': column 'critical_mask' has \d+ weights for"):
        evaluate(job_of(arguments(models, data, out, "--eval.annotated", str(cut))))
    with pytest.raises(ValueError, match=r"--eval.annotated: nothing is measured on it"):
        job_of(arguments(models, data, out, "--eval.annotated", str(annotated), "--eval.entropy_positions", "0"))
    assert not pipeline.calls


def test_greedy_alone(models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path) -> None:
    pipeline.samples = 0
    one, data = {"base": models["base"]}, str(questions(tmp_path / "test.jsonl"))
    found = evaluate(job_of([*arguments(one, data, tmp_path / "out"), "--eval.n_samples", "0"]))
    figures = found["results"]["test"]["base"]["figures"]
    assert set(figures) == {"accuracy", "greedy_length", "greedy_cut_off", "greedy_unparsable"}
    assert not list((tmp_path / "out" / "plots").iterdir()) and "no samples" in tables(found)
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--eval.n_samples", "-1"], "--eval.n_samples: -1 must be at least 0"),
        (["--eval.n_samples", "1001"], "--eval.n_samples: 1001 is more than 1000"),
        (["--eval.max_new_tokens", "0"], "--eval.max_new_tokens: 0 must be at least 1"),
        (["--eval.temperature", "0"], "--eval.temperature: 0 must be above 0; the greedy response is there anyway"),
        (["--eval.temperature", "nan"], "--eval.temperature: nan must be above 0"),
        (["--eval.top_p", "1.2"], "--eval.top_p: 1.2 must be above 0 and at most 1"),
        (["--eval.entropy_positions", "-5"], "--eval.entropy_positions: -5 must be at least 0"),
        (["--eval.benchmark_dir", "/nowhere"], "--eval.benchmark_dir: no folder '/nowhere'"),
        (["--eval.verifier", "chess"], "--eval.verifier: unknown verifier 'chess'"),
        (["--eval.annotated", "/nowhere"], "--eval.annotated: '/nowhere' is no annotated data set"),
        (["--compare", "base=x", "base=y"], "--compare: 'base' is given twice"),
        (["--compare", "../x=y"], "--compare: '../x=y' is not NAME=CHECKPOINT"),
        (["--compare", "_x=y"], "--compare: '_x=y' is not NAME=CHECKPOINT"),
        (["--data.dataset", "absent.jsonl"], "--data.dataset: no file 'absent.jsonl'"),
    ],
)
def test_bad_input_is_refused_before_an_engine_starts(
    flags: list[str], sentence: str, models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path
) -> None:
    data = str(questions(tmp_path / "test.jsonl"))
    with pytest.raises(ValueError) as caught:
        evaluate(job_of([*arguments(models, data, tmp_path / "out"), *flags]))
    assert sentence in str(caught.value)
    assert not pipeline.calls and not (tmp_path / "out" / "metrics.json").exists()


def test_annotated_responses_of_another_tokenizer(
    models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path
) -> None:
    other = write_rows(tmp_path / "other", make_rows(3), {"tokenizer_fingerprint": "another"})
    flags = arguments(
        models, str(questions(tmp_path / "test.jsonl")), tmp_path / "out", "--eval.annotated", str(other)
    )
    with pytest.raises(ValueError, match=r"was annotated with another tokenizer than that of base="):
        evaluate(job_of(flags))
    assert not pipeline.calls


def test_changes_are_counted_over_all_questions(
    models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path
) -> None:
    """The page counts them all, and shows some that became right and some that became wrong."""
    pipeline.samples = 0
    rows = [{"id": f"q{i}\u202e", "question": f"{i} and {i} is?", "answer": str(2 * i)} for i in range(200)]
    data, out = tmp_path / "test.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    two = {name: models[name] for name in ("base", "cft")}
    evaluate(job_of([*arguments(two, str(data), out, "--eval.entropy_positions", "0"), "--eval.n_samples", "0"]))
    rows_of = {name: read_rows(out / "samples" / f"test--{name}.parquet") for name in two}
    right = {name: {row["id"] for row in of if row["verdict"] == "correct"} for name, of in rows_of.items()}
    gained, lost = len(right["cft"] - right["base"]), len(right["base"] - right["cft"])
    assert min(gained, lost) > report.CHANGED // 2
    text, half = (out / "report.html").read_text(), report.CHANGED // 2
    assert f"base → cft: {gained} from wrong to right, {half} of them below. <a" in text
    assert f"base → cft: {lost} from right to wrong, {half} of them below. <a" in text
    assert text.count('href="#data-1-') == report.CHANGED and "\u202e" not in text
