"""Source rows to prompts, and the work directory's refusals: what a user gets wrong, and what is said then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from train_helpers import make_model

from openrlhf_cft.annotation.job import annotate
from openrlhf_cft.cli.annotate import job_of
from openrlhf_cft.cli.evaluate import checkpoints
from openrlhf_cft.data.literal_text import LiteralText
from openrlhf_cft.data.location import location
from openrlhf_cft.data.prompts import write_prompts
from openrlhf_cft.data.records import read_rows
from openrlhf_cft.data.rendering import render_prompt, response_ids
from openrlhf_cft.data.source import SourceSettings, load_source, row_ids

STOPS = frozenset([1])  # EOS of the model
QUESTIONS = [{"id": f"q{i}", "question": f"what is {i}?", "answer": str(i)} for i in range(4)]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def arguments(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    keys = ["--data.input_key", "question", "--data.label_key", "answer", "--ckpt.output_dir", str(out)]
    return ["--model.model_name_or_path", str(model), "--data.dataset", str(data), *keys, *more]


def refusal(model: Path, data: Path, out: Path, *more: str) -> str:
    """The sentence with which the command refuses, before any engine starts."""
    with pytest.raises(ValueError) as caught:
        annotate(job_of(arguments(model, data, out, *more)))
    assert not list(out.glob("*.parquet"))
    return str(caught.value)


def test_prompts_keep_the_source_and_make_way_for_annotation(model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    rows = [{**row, "prompt": "mine", "level": 3} for row in QUESTIONS]
    settings = SourceSettings(str(jsonl(tmp_path / "q.jsonl", rows)), input_key="question", label_key="answer")
    tokenizer = AutoTokenizer.from_pretrained(model)
    fingerprint = write_prompts(load_source(settings), tokenizer, settings, location(tmp_path / "p.parquet"), STOPS)
    written = list(read_rows(tmp_path / "p.parquet"))
    assert [row["id"] for row in written] == ["q0", "q1", "q2", "q3"]
    assert written[2]["prompt"] == "what is 2?" and written[2]["source_prompt"] == "mine" and written[2]["level"] == 3
    ids = tokenizer("what is 2?", add_special_tokens=False)["input_ids"]
    assert written[2]["prompt_token_ids"] == ids and written[2]["_gold"] == written[2]["answer"] == "2"
    assert fingerprint == write_prompts(
        load_source(settings), tokenizer, settings, location(tmp_path / "again.parquet"), STOPS
    )


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet", "directory"])
def test_data_sets_load_as_openrlhf_loads_them(suffix: str, tmp_path: Path) -> None:
    import datasets

    data = datasets.Dataset.from_list(QUESTIONS)
    path = tmp_path / f"data.{suffix}"
    save = {"csv": data.to_csv, "parquet": data.to_parquet, "directory": data.save_to_disk}.get(suffix, data.to_json)
    save(str(path))
    loaded = load_source(SourceSettings(str(path), input_key="question", label_key="answer", max_samples=3))
    assert [row["question"] for row in loaded] == [row["question"] for row in QUESTIONS[:3]]


def test_prompts_are_rendered_as_openrlhf_renders_them(model: Path) -> None:
    from openrlhf.datasets.prompts_dataset import preprocess_data
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
    row = {"question": "what is 2?", "chat": [{"role": "user", "content": "what is 2?"}], "answer": "2"}
    for key, template, chat in [
        ("question", None, False),
        ("question", "User: {}\nAssistant: ", False),
        ("question", None, True),
        ("chat", None, True),
    ]:
        settings = SourceSettings("x", input_key=key, apply_chat_template=chat, input_template=template)
        stock = preprocess_data(row, template, key, "answer", tokenizer.apply_chat_template if chat else None)
        assert render_prompt(row[key], LiteralText(tokenizer), settings) == stock[0]
    with pytest.raises(ValueError, match="apply_chat_template"):
        render_prompt(row["chat"], LiteralText(tokenizer), SourceSettings("x"))


def test_given_responses_become_the_ids_that_sft_would_train_but_for_its_space_before_eos(
    model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    tokenizer.chat_template = template + "{% if add_generation_prompt %}<assistant>{% endif %}"
    rows = [{"id": "a", "question": "1 and 2?", "answer": "3", "solution": "it is 3\n"}]
    data = jsonl(tmp_path / "q.jsonl", rows)
    for chat, prompt in ((False, "1 and 2?"), (True, "<user>1 and 2?</s><assistant>")):
        settings = SourceSettings(
            str(data), input_key="question", label_key="answer", output_key="solution", apply_chat_template=chat
        )
        write_prompts(load_source(settings), tokenizer, settings, location(tmp_path / "p.parquet"), STOPS)
        (row,) = read_rows(tmp_path / "p.parquet")
        text = "it is 3\n" if chat else "it is 3"  # the template closes it behind the newline
        whole = tokenizer(prompt + text, add_special_tokens=False)["input_ids"]
        assert row["prompt_token_ids"] + row["_given_token_ids"] == [*whole, tokenizer.eos_token_id]


def test_several_data_sets_are_one(model: Path, tmp_path: Path) -> None:
    first, second = (
        jsonl(tmp_path / "a.jsonl", QUESTIONS),
        jsonl(tmp_path / "b.jsonl", [{**QUESTIONS[0], "id": "new"}]),
    )
    keys: dict[str, Any] = {"input_key": "question", "label_key": "answer"}
    both = load_source(SourceSettings(f"{first}, {second}", **keys))
    assert both["id"][:] == [row["id"] for row in QUESTIONS] + ["new"]
    assert len(load_source(SourceSettings(f"{first},{second}", max_samples=2, **keys))) == 2
    more = jsonl(tmp_path / "more.jsonl", [{"id": "m", "question": "q", "answer": "1", "level": 3}])
    assert load_source(SourceSettings(f"{first},{more}", **keys))["level"][:] == [None] * len(QUESTIONS) + [3]
    assert "id 'q0' occurs more than once" in refusal(model, Path(f"{first},{first}"), tmp_path / "out")
    other = jsonl(tmp_path / "other.jsonl", [{"id": "o", "question": "q", "answer": 3}])
    assert "cannot be read as one" in refusal(model, Path(f"{first},{other}"), tmp_path / "out")
    assert "no file" in refusal(model, Path(f"{first},{tmp_path / 'gone.jsonl'}"), tmp_path / "out")


def test_an_annotated_data_set_can_be_annotated_again(model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    row = {"id": "a", "prompt_token_ids": [5, 6], "response_token_ids": [7, 8, 1], "critical_mask": [0.0, 1.0, 0.0]}
    data = jsonl(tmp_path / "q.jsonl", [{**row, "answer": "3", "source_critical_mask": "of the time before"}])
    settings = SourceSettings(
        str(data), input_key="prompt_token_ids", label_key="answer", output_key="response_token_ids"
    )
    write_prompts(
        load_source(settings), AutoTokenizer.from_pretrained(model), settings, location(tmp_path / "p.parquet"), STOPS
    )
    (written,) = read_rows(tmp_path / "p.parquet")
    assert (written["prompt_token_ids"], written["_given_token_ids"]) == ([5, 6], [7, 8, 1])
    assert written["source_critical_mask"] == row["critical_mask"]


def test_a_response_that_is_none(model: Path, tmp_path: Path) -> None:
    rows = [{**row, "solution": "it is" if row["id"] != "q2" else None} for row in QUESTIONS]
    data = jsonl(tmp_path / "q.jsonl", rows)
    message = refusal(model, data, tmp_path / "out", "--data.output_key", "solution")
    assert "row 'q2': column 'solution': None is no response" in message
    assert "no column 'text'" in refusal(model, data, tmp_path / "out", "--data.output_key", "text")


def test_given_responses_that_cannot_be_one(model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    eos, settings = tokenizer.eos_token_id, SourceSettings("x", apply_chat_template=True)

    def refused(value: object, question: object = "q", prompt: str = "q") -> str:
        with pytest.raises(ValueError) as caught:
            response_ids(value, question, prompt, LiteralText(tokenizer), settings, STOPS)
        return str(caught.value)

    assert f"token id {len(tokenizer)} at position 1" in refused([5, len(tokenizer), eos])
    assert "token id -1 at position 0" in refused([-1])
    assert "</s> is token 1 of 4" in refused([5, eos, 6, eos])
    assert "the response has to be one too" in refused("it is 3", [5, 6])
    tokenizer.chat_template = "{% for m in messages %}[{{ messages | length }}{{ m['content'] }}]{% endfor %}"
    assert "changes the prompt when a response follows" in refused("it is 3", prompt="[1q]")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.eos_token = None
    assert "no EOS token" in refused("it is 3")


def test_bad_data_is_refused_in_one_sentence(model: Path, tmp_path: Path) -> None:
    good, out = jsonl(tmp_path / "good.jsonl", QUESTIONS), tmp_path / "out"
    assert "no file" in refusal(model, tmp_path / "gone.jsonl", out) and "gone.jsonl" in refusal(
        model, tmp_path / "gone.jsonl", out
    )
    assert "no column 'frage'" in refusal(model, good, out, "--data.input_key", "frage")
    assert "no column 'gold'" in refusal(model, good, out, "--data.label_key", "gold")
    assert "no column 'nr'" in refusal(model, good, out, "--data.id_key", "nr")
    assert "'valid' is not in" in refusal(model, good, out, "--data.dataset_split", "valid")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "empty.jsonl" in refusal(model, empty, out)
    twice = jsonl(tmp_path / "twice.jsonl", [*QUESTIONS, QUESTIONS[1]])
    assert "'q1' occurs more than once" in refusal(model, twice, out)
    unanswered = jsonl(tmp_path / "unanswered.jsonl", [*QUESTIONS, {"id": "q9", "question": "?", "answer": None}])
    assert "row 'q9': column 'answer': no gold answer" in refusal(model, unanswered, out)
    silent = jsonl(tmp_path / "silent.jsonl", [*QUESTIONS, {"id": "q9", "question": "", "answer": "1"}])
    assert "row 'q9': column 'question': there is no question" in refusal(model, silent, out)


def test_bad_flags_are_refused_in_one_sentence(model: Path, tmp_path: Path) -> None:
    good, out = jsonl(tmp_path / "good.jsonl", QUESTIONS), tmp_path / "out"
    for flag, value in [
        ("--annotate.top_k", "1"),
        ("--annotate.max_new_tokens", "0"),
        ("--annotate.verifier", "oracle"),
        ("--vllm.num_engines", "0"),
        ("--vllm.rows_in_flight", "0"),
        ("--vllm.engine_args", "[1]"),
        ("--vllm.engine_args", "{"),
        ("--data.max_samples", "0"),
        ("--data.input_template", "no braces"),
    ]:
        assert value in refusal(model, good, out, flag, value)
    assert "no engine argument 'block_sise'" in refusal(model, good, out, "--vllm.engine_args", '{"block_sise": 32}')
    assert "nowhere" in refusal(Path("/nowhere/nothing"), good, out)
    for pairs in (["base"], ["base="], ["a/b=x"], ["a=x", "a=y"]):
        with pytest.raises(ValueError, match=pairs[-1].split("=")[0]):
            checkpoints(pairs)


def test_an_output_directory_of_another_run_is_refused(model: Path, tmp_path: Path) -> None:
    good, out = jsonl(tmp_path / "good.jsonl", QUESTIONS), tmp_path / "out"
    model = shutil.copytree(model, tmp_path / "model")
    prepare(model, good, out)
    message = refusal(model, good, out, "--annotate.top_k", "2")
    assert "holds another run" in message and "strict-3" in message and "strict-2" in message
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")  # trained again
    assert "holds another run (weights was" in refusal(model, good, out)
    jsonl(good, [*QUESTIONS[:3], {**QUESTIONS[3], "answer": "4"}])
    assert "source_fingerprint" in refusal(model, good, out)


def test_a_directory_of_a_version_that_kept_less_goes_on(model: Path, tmp_path: Path) -> None:
    good, out = jsonl(tmp_path / "good.jsonl", QUESTIONS), tmp_path / "out"
    config = prepare(model, good, out)
    file = out / ".annotate" / "config.json"
    file.write_text(json.dumps({key: value for key, value in config.items() if key != "weights"}))
    assert prepare(model, good, out) == config == json.loads(file.read_text())  # which notices from now on


def prepare(model: Path, data: Path, out: Path) -> dict[str, Any]:
    """What annotation does before an engine starts."""
    from openrlhf_cft.annotation.row_worker import settings_record
    from openrlhf_cft.jobs.workdir import Workdir

    job = job_of(arguments(model, data, out))
    work = Workdir(location(str(out / ".annotate")), "annotate")
    return work.prepare(job.source, job.factory.engine, settings_record(job.factory))


def test_ids_are_row_numbers_without_a_column(tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": "1", "nr": 7}, {"question": "b", "answer": "1", "nr": 5}]
    settings = SourceSettings(str(jsonl(tmp_path / "q.jsonl", rows)), input_key="question", label_key="answer")
    data = load_source(settings)
    assert row_ids(data, settings) == (["0", "1"], [])
    assert row_ids(data, SourceSettings("x", id_key="nr")) == (["7", "5"], [])


def test_another_data_set_in_the_output_directory_is_not_overwritten(model: Path, tmp_path: Path) -> None:
    """Here that of the questions themselves; it may be one of `masks`, or one whose state was deleted."""
    out = tmp_path / "mine"
    out.mkdir()
    pq.write_table(pa.Table.from_pylist(QUESTIONS), out / "part-00001.parquet")
    with pytest.raises(ValueError, match=r"--ckpt.output_dir: '.*mine' holds another data set \(part-00001.parquet\)"):
        annotate(job_of(arguments(model, out, out)))
    assert [file.name for file in out.iterdir()] == ["part-00001.parquet"]
    assert pq.read_table(out / "part-00001.parquet").num_rows == 4
