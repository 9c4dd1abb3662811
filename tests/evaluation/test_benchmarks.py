r"""Each benchmark from a file in its own schema (rows of ours): loaded, rendered, its gold answer accepted.

The files are what the hub's rows are as JSON lines; `benchmarks.py` says where each schema is from.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from train_helpers import make_model, make_tokenizer

from openrlhf_cft.data.literal_text import LiteralText
from openrlhf_cft.data.records import Verdict
from openrlhf_cft.data.rendering import render_prompt
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.evaluation.benchmarks import BENCHMARKS, BOXED, BOXED_LETTER, load_benchmark
from openrlhf_cft.evaluation.sources import is_benchmark, load_data_sets, short_names
from openrlhf_cft.verify import VERIFIERS
from openrlhf_cft.verify.settings import VerifierSettings

FILES = Path(__file__).parent / "benchmarks"
# What each file's rows have to become: a part of the question, and a response that is right.
EXPECTED: dict[str, list[tuple[str, str]]] = {
    "gsm8k": [("7 trays of 12 rolls", r"\boxed{114}"), ("1,250 bricks", r"so \boxed{5000}")],
    "math500": [("slope of the line $4y", r"\boxed{3/4}"), ("interval notation", r"\boxed{[-3, 3]}")],
    "svamp": [("6 equal rows. How many chairs", r"\boxed{7}"), ("pieces. How long", r"\boxed{2.5}")],
    "asdiv": [("in a barn. How many cats", r"\boxed{12}"), ("a half. How many litres", r"\boxed{1.5}")],
    "mawps": [("Nora had 31 stamps", r"\boxed{19}"), ("1.25 dollars", r"\boxed{\$3.75}")],
    "carp_en": [("( 2 a + b )", r"\boxed{4a^2 - b^2}"), ("inequality", r"\boxed{x > 5/2}")],
    "tabmwp": [
        ('table regarding "Toys sold" and answer a question:\nToy | Number\nKite | 32', r"\boxed{14}"),
        ("options: ['surplus', 'shortage']", r"\boxed{shortage}"),
        ("pad of paper | $502.25\nWhat do 2", r"\boxed{1004.5}"),
    ],
    "minerva_math": [("spring of stiffness", r"\boxed{1}"), ("largest speed", r"\boxed{A\omega}")],
    "gaokao2023en": [(r"find $A \cap B$", r"\boxed{\{x | 1<x<4\}}"), ("vector $(2,2)$", r"\boxed{2\sqrt{2}}")],
    "olympiadbench": [("divisible by every integer", r"\boxed{60}"), ("all real $x$", r"\boxed{-\sqrt5, \sqrt5}")],
    "college_math": [("Simplify: $3(x-2)", r"\boxed{3x - 1}"), ("derivative", r"\boxed{3x^2}")],
    "medqa": [("\nA. Asthma\nB. Croup\nC. Pneumonia", r"\boxed{B}"), ("D. Vitamin C", "The answer is **(D)**.")],
}


def test_every_benchmark_has_a_file_and_expectations() -> None:
    assert set(BENCHMARKS) == set(EXPECTED) == {file.stem for file in FILES.glob("*.jsonl")}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_rows_become_questions_whose_gold_answer_is_accepted(name: str, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    source = SourceSettings(name, apply_chat_template=True)
    (data,) = load_data_sets(source, VerifierSettings(), own_verifier=True, directory=str(FILES))
    assert data.name == name and len(data.rows) == len(EXPECTED[name])
    verifier = VERIFIERS[data.verifier.verifier]
    for row, (part, response) in zip(data.rows, EXPECTED[name], strict=True):
        prompt = render_prompt(row[data.source.input_key], LiteralText(tokenizer), data.source)
        instruction = BOXED_LETTER if name == "medqa" else BOXED
        assert part in prompt and prompt.startswith("<user>") and prompt.endswith(f"{instruction}<assistant>")
        gold = row[data.source.label_key]
        gold_response = verifier.gold_response(gold)
        assert gold_response is not None and verifier.judge(gold_response, gold, "").verdict is Verdict.CORRECT, gold
        assert verifier.judge(response, gold, "").verdict is Verdict.CORRECT, (response, gold)
        assert verifier.judge(r"\boxed{-987}", gold, "").verdict is not Verdict.CORRECT
    assert len(set(data.rows["id"])) == len(data.rows)


def test_answers_of_several_parts_are_left_out_of_asdiv() -> None:
    assert load_benchmark("asdiv", str(FILES)).rows["id"][:] == ["0", "2"]  # numbers stay those of the benchmark
    assert load_benchmark("asdiv", str(FILES), max_samples=1).rows["id"][:] == ["0"]


def test_a_local_copy_may_have_the_columns_of_the_qwen_evaluation(tmp_path: Path) -> None:
    row = {"problem": "What is 2+2?", "solution": r"It is $\boxed{4}$.", "type": "None", "idx": 0}
    (tmp_path / "minerva_math.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = load_benchmark("minerva_math", str(tmp_path)).rows
    assert VERIFIERS["math"].judge(r"\boxed{4}", found["answer"], "").verdict is Verdict.CORRECT


def test_a_local_copy_may_be_the_folder_of_the_repository(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "svamp"
    folder.mkdir()
    rows = datasets.load_dataset("json", data_files=str(FILES / "svamp.jsonl"), split="train")
    for split in ("train", "test"):
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    assert len(load_benchmark("svamp", str(tmp_path)).rows) == 4  # both splits


def rows_of(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (FILES / f"{name}.jsonl").read_text("utf-8").splitlines()]


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import datasets

        datasets.Dataset.from_list(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in ("math500", "medqa")])
def test_the_folder_of_the_qwen_evaluation(name: str, tmp_path: Path) -> None:
    """`evaluation/data/NAME/test.jsonl`; for some there is a `train.jsonl` beside it."""
    write_rows(tmp_path / name / "test.jsonl", rows_of(name))
    if name in ("gsm8k", "asdiv"):
        write_rows(tmp_path / name / "train.jsonl", rows_of(name)[:1])
    assert load_benchmark(name, str(tmp_path)).rows[:] == load_benchmark(name, str(FILES)).rows[:]


SNAPSHOTS = {
    "gsm8k": {"main/test-0.parquet": 1, "main/train-0.parquet": 2, "socratic/test-0.parquet": 2},
    "olympiadbench": {
        "OlympiadBench/OE_TO_maths_en_COMP/OE_TO_maths_en_COMP.parquet": 1,
        "OlympiadBench/OE_TO_maths_zh_CEE/OE_TO_maths_zh_CEE.parquet": 2,
    },
    "asdiv": {"asdiv/validation/0000.parquet": 1},
    "svamp": {"data/train-0.parquet": 1, "data/test-0.parquet": 1},
    "math500": {"test.jsonl": 1},
    "medqa": {"test.json": 1, "train.json": 2, "dev.json": 2},
}  # each file holds the benchmark's rows (1), or others (2)


@pytest.mark.parametrize("name", SNAPSHOTS)
@pytest.mark.parametrize("layout", ["name", "repository", "last part", "cache"])
def test_snapshots_of_the_hubs_repositories(name: str, layout: str, tmp_path: Path) -> None:
    repository = BENCHMARKS[name].repository
    cache = f"datasets--{repository.replace('/', '--')}/snapshots/0123abc"
    folder = {"name": name, "repository": repository, "last part": repository.split("/")[1], "cache": cache}[layout]
    rows = rows_of(name)
    for file, content in SNAPSHOTS[name].items():
        others = [{**row, "question": "another", "language": "Chinese"} for row in rows]
        write_rows(tmp_path / folder / file, rows if content == 1 else others)
    found = load_benchmark(name, str(tmp_path)).rows
    expected = load_benchmark(name, str(FILES)).rows
    assert found["question"][:] == expected["question"][:] * (2 if name == "svamp" else 1)


def test_rows_without_an_answer_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"question": f"What is {n}?", "answer": answer} for n, answer in enumerate(["$1$", "", "$$", " $ $ ", "$4$"])
    ]
    write_rows(tmp_path / "gaokao2023en.jsonl", rows)
    (data,) = load_data_sets(SourceSettings("gaokao2023en"), VerifierSettings(), True, str(tmp_path))
    assert data.rows["id"][:] == ["0", "4"] and data.record()["no_gold_answer"] == 3
    assert "gaokao2023en: 3 of its rows have no gold answer and are left out" in caplog.text


def test_tolerances_of_the_benchmarks(tmp_path: Path) -> None:
    judge = VERIFIERS["math"].judge
    write_rows(tmp_path / "minerva_math.jsonl", [{"question": "?", "answer": "1.70e4"}])
    (row,) = load_benchmark("minerva_math", str(tmp_path)).rows
    for response, right in ((r"\boxed{1.69 \times 10^4}", True), (r"\boxed{16500}", False), (r"\boxed{17 km}", False)):
        assert (judge(response, row["answer"], "").verdict is Verdict.CORRECT) is right
    first = rows_of("olympiadbench")[0]
    write_rows(tmp_path / "olympiadbench.jsonl", [{**first, "final_answer": ["3.14"], "error": "1e-1"}, first])
    near, exact = load_benchmark("olympiadbench", str(tmp_path)).rows
    assert judge(r"\boxed{3.2}", near["answer"], "").verdict is Verdict.CORRECT
    assert judge(r"\boxed{3.3}", near["answer"], "").verdict is Verdict.WRONG
    assert judge(r"\boxed{60.05}", exact["answer"], "").verdict is Verdict.WRONG


def test_yes_or_no_is_said_behind_the_question(tmp_path: Path) -> None:
    rows = [{"problem": "Is it?", "answer": answer} for answer in ("\\text{Yes}", "no", "False", "7")]
    write_rows(tmp_path / "math500.jsonl", rows)
    said = [question.splitlines()[0] for question in load_benchmark("math500", str(tmp_path)).rows["question"][:]]
    assert said == ["Is it? (Yes or No)", "Is it? (Yes or No)", "Is it? (True or False)", "Is it?"]


@pytest.mark.parametrize(("name", "repository"), [("gsm8k", "openai/gsm8k"), ("mawps", "https://raw.github")])
def test_without_a_network_it_says_what_to_do(name: str, repository: str, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    command = [sys.executable, "-m", "openrlhf_cft.cli.evaluate", "--compare", f"base={model}"]
    command += ["--data.dataset", name, "--ckpt.output_dir", str(tmp_path / "out")]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    result = subprocess.run(command, env=offline, capture_output=True, text=True, timeout=300)
    assert result.returncode == 2 and not (tmp_path / "out").exists()
    (sentence,) = result.stderr.strip().splitlines()
    assert f"cannot load the benchmark {name!r} at '{repository}" in sentence
    assert sentence.endswith(f"give a folder with a copy, {name}.jsonl, as --eval.benchmark_dir")


def test_what_is_no_copy_of_the_benchmark(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"cannot load the benchmark 'gsm8k' in .*neither a file gsm8k.jsonl nor a fo"
    ):
        load_benchmark("gsm8k", str(tmp_path))
    (tmp_path / "svamp.jsonl").write_text('{"frage": "?", "antwort": 1}\n')
    with pytest.raises(
        ValueError, match=r"row 0 of 'svamp' is not as .* rows are \(KeyError: 'Body'\); it has \['ant"
    ):
        load_benchmark("svamp", str(tmp_path))


def test_a_path_of_that_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_benchmark("gsm8k") and not is_benchmark("test.jsonl")
    (tmp_path / "gsm8k").mkdir()
    assert not is_benchmark("gsm8k")


def test_a_verifier_that_is_named_is_used_for_all() -> None:
    named = VerifierSettings("exact")
    data = load_data_sets(SourceSettings("medqa,gsm8k"), named, own_verifier=False, directory=str(FILES))
    assert [one.verifier.verifier for one in data] == ["exact", "exact"]
    data = load_data_sets(SourceSettings("medqa,gsm8k"), named, own_verifier=True, directory=str(FILES))
    assert [one.verifier.verifier for one in data] == ["choice", "math"]
    assert data[0].record()["repository"] == "GBaker/MedQA-USMLE-4-options-hf"


def test_short_names() -> None:
    assert short_names(["a/test.jsonl"]) == ["test"]
    assert short_names(["a/test.jsonl", "b/test.jsonl", "gsm8k"]) == ["a-test", "b-test", "gsm8k"]
    assert short_names(["openai/gsm8k@main", "s3://key:secret@bucket/x/t.parquet?region=eu"]) == ["gsm8k-main", "t"]
    with pytest.raises(ValueError, match="'a' is named twice"):
        short_names(["a", "b", "a"])
    with pytest.raises(ValueError, match="too much alike"):
        short_names(["a/t.json", "a/t.jsonl"])
