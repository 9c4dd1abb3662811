"""Questions and given responses in the templates of known families: whole, ended once, or refused with the row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_families import CHAT, gpt2

from openrlhf_cft.data.literal_text import LiteralText
from openrlhf_cft.data.location import location
from openrlhf_cft.data.prompts import write_prompts
from openrlhf_cft.data.records import read_rows
from openrlhf_cft.data.rendering import check_template, prompt_token_ids, render_prompt, response_ids
from openrlhf_cft.data.source import SourceSettings, load_source
from openrlhf_cft.data.stop_tokens import turn_end
from openrlhf_cft.errors import InputError

SETTINGS = SourceSettings("x", apply_chat_template=True)


def given(tokenizer: Any, value: Any, question: Any = "How many?", literal: bool = True) -> list[str]:
    """A given response as tokens."""
    stops = frozenset({turn_end(tokenizer), tokenizer.eos_token_id})
    text = LiteralText(tokenizer, literal)
    prompt = render_prompt(question, text, SETTINGS)
    return list(tokenizer.convert_ids_to_tokens(response_ids(value, question, prompt, text, SETTINGS, stops)))


@pytest.mark.parametrize("family", CHAT)
@pytest.mark.parametrize("value", ["3", "There are 3 pears.\nSo 3.", [{"role": "assistant", "content": "3"}], "3\n"])
def test_a_given_response_ends_as_the_family_ends_a_turn(family: str, value: Any) -> None:
    tokenizer = CHAT[family]()
    tokens = given(tokenizer, value)
    end = tokenizer.convert_ids_to_tokens(turn_end(tokenizer))
    assert tokens[-1] == end and tokens.count(end) == 1
    assert "</s>" not in tokens[:-1] and tokenizer.eos_token not in tokens[:-1]
    text = value if isinstance(value, str) else value[0]["content"]
    assert tokenizer.convert_tokens_to_string(tokens[:-1]).strip() == text.strip()


@pytest.mark.parametrize(
    ("family", "value"),
    [
        ("deepseek_r1", "<think>1 and 2 is 3</think>3"),
        ("llama3", "    return 3"),
        ("gemma", "\n  3"),
    ],
)
def test_a_template_that_changes_the_response_is_refused(family: str, value: str) -> None:
    with pytest.raises(InputError, match="the chat template changes the response: "):
        given(CHAT[family](), value)


@pytest.mark.parametrize(
    ("family", "token"), [("qwen", "<|im_end|>"), ("gemma", "<end_of_turn>"), ("mistral", "</s>")]
)
def test_a_response_with_a_stop_token_inside_is_refused(family: str, token: str) -> None:
    with pytest.raises(InputError, match=f"{token.replace('|', '.')} is token .* ends with its first stop token"):
        given(CHAT[family](), f"It is{token}3", literal=False)


@pytest.mark.parametrize("family", [*CHAT, "gpt2"])
def test_bos_is_where_the_tokenizer_puts_it_and_never_twice(family: str) -> None:
    tokenizer = (CHAT | {"gpt2": gpt2})[family]()
    text = LiteralText(tokenizer)
    ids = prompt_token_ids("How many?", text, "auto")
    assert ids == tokenizer("How many?")["input_ids"]
    assert (ids[0] == tokenizer.bos_token_id) == (family in ("gemma", "llama3"))
    without = tokenizer("How many?", add_special_tokens=False)["input_ids"]
    assert prompt_token_ids("How many?", text, "never") == without
    if tokenizer.chat_template:
        rendered = render_prompt("How many?", text, SETTINGS)
        written = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        assert prompt_token_ids(rendered, text, "auto") == written, "the template has written it"
    assert prompt_token_ids("", text, "auto") == []


def test_messages_are_as_json_has_them() -> None:
    """Arrow fills keys that other rows have with null, and a template asks whether a key is there."""
    tokenizer = CHAT["qwen"]()
    tokenizer.chat_template = "{% for m in messages %}{{ 'tool' if 'tool_calls' in m else m.content }}{% endfor %}"
    turn = {"role": "user", "content": "Hi", "tool_calls": None}
    assert render_prompt([turn], LiteralText(tokenizer), SETTINGS) == "Hi"


@pytest.mark.parametrize(
    ("family", "value", "told"),
    [
        ("qwen", None, "there is no question"),
        ("qwen", "  ", "there is no question"),
        ("qwen", [], "is neither a text nor a list of messages"),
        ("qwen", 7, "is neither a text nor a list of messages"),
        ("qwen", [{"content": "Hi"}], "has no role"),
        ("qwen", [{"role": "user", "content": None}], "the message {'role': 'user'} has no content"),
        ("qwen", [{"role": "user", "content": "a"}, None], "neither a text nor a list of messages"),
        ("gemma", [{"role": "system", "content": "Hi"}], "the chat template refuses it: System role not supported"),
        ("gemma", [{"role": "user", "content": "a"}] * 2, "refuses it: Conversation roles must alternate"),
        (
            "qwen",
            [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}],
            "the conversation ends with the assistant's own turn",
        ),
    ],
)
def test_a_question_that_is_none(family: str, value: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        render_prompt(value, LiteralText(CHAT[family]()), SETTINGS)


@pytest.mark.parametrize("template", ["Question: {}\nAnswer:", "{}", "Write \\boxed{{}}. {}", "{0}"])
def test_templates(template: str) -> None:
    check_template(template)
    assert SourceSettings("x", input_template=template).input_template is not None


@pytest.mark.parametrize(
    "template", ["{} \\boxed{}", '{"q": {}}', "{question}", "{!r}", "{:>9}", "{", "}", "{} {", "none"]
)
def test_templates_that_stock_openrlhf_could_not_fill(template: str) -> None:
    with pytest.raises(InputError, match=r"--data.input_template: .* has to have \{\} once, for the question; braces"):
        SourceSettings("x", input_template=template)


def prompts(folder: Path, data: Path, family: str = "qwen", **settings: Any) -> list[dict[str, Any]]:
    given = {"input_key": "question", "label_key": "answer", **settings}
    source = SourceSettings(str(data), **given)
    tokenizer = CHAT[family]()
    stops = frozenset([tokenizer.eos_token_id])
    write_prompts(load_source(source), tokenizer, source, location(folder / "prompts.parquet"), stops)
    return list(read_rows(folder / "prompts.parquet"))


def test_a_csv_file_is_text(tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text('id,question,answer,level\n01,1 + 6?,007,3\n02,"Why, then?",None,4\n03,8,1.50,5\n')
    rows = prompts(tmp_path, data)
    assert [(row["id"], row["prompt"], row["_gold"], row["level"]) for row in rows] == [
        ("01", "1 + 6?", "007", 3),
        ("02", "Why, then?", "None", 4),
        ("03", "8", "1.50", 5),
    ]


def test_gold_answers_of_a_column_of_numbers(tmp_path: Path) -> None:
    table = {"question": pa.array(["a", "b", "c"]), "answer": pa.array([3.14, 0.3, 18.0], pa.float32())}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    assert [row["_gold"] for row in prompts(tmp_path, tmp_path / "rows.parquet")] == ["3.14", "0.3", "18"]


def test_rows_in_a_compressed_file(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl.gz"
    with gzip.open(data, "wt") as file:
        file.write('{"question": "a", "answer": 1}\n{"question": "b", "answer": 2}\n')
    assert [row["_gold"] for row in prompts(tmp_path, data)] == ["1", "2"]


def test_prompts_that_were_rendered_before_are_not_guessed_at(tmp_path: Path) -> None:
    """Control tokens or words: most rows have them, in no template, so the user has to say which."""
    data = tmp_path / "rows.jsonl"
    questions = ["<|im_start|>user\nHi<|im_end|>\n", "<|im_start|>user\nHo<|im_end|>\n", "Hey"]
    data.write_text("".join(json.dumps({"question": question, "answer": 1}) + "\n" for question in questions))
    tokenizer = CHAT["qwen"]()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    with pytest.raises(InputError, match=r"2 of 3 prompts have special tokens.*--data.special_tokens control if"):
        prompts(tmp_path, data)
    for special_tokens, ends in (("control", [1, 1, 0]), ("text", [0, 0, 0])):
        rows = prompts(tmp_path, data, special_tokens=special_tokens)
        assert [row["prompt_token_ids"].count(end) for row in rows] == ends
        assert [row["prompt"] for row in rows] == questions
    in_a_template = prompts(tmp_path, data, input_template="<|im_start|>{}<|im_end|>")
    assert [row["prompt_token_ids"].count(end) for row in in_a_template] == [1, 1, 1]
    assert in_a_template[0]["prompt"] == f"<|im_start|>{questions[0]}<|im_end|>"


def test_responses_that_the_template_changes_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tmp_path / "rows.jsonl"
    solutions = ["It is 3.", "<think>1 and 2</think>It is 3.", "3"]
    lines = [json.dumps({"question": "1 + 2?", "answer": 3, "solution": solution}) for solution in solutions]
    data.write_text("\n".join(lines))
    chat = {"output_key": "solution", "apply_chat_template": True, "family": "deepseek_r1"}
    rows = prompts(tmp_path, data, **chat)
    assert [row["_given_token_ids"] is None for row in rows] == [False, True, False]
    lost = "row '1': column 'solution': the chat template changes the response: '<think>1 and 2</think>It is 3.'"
    assert f"1 of 3 rows are left out; the first: {lost}" in caplog.text
    data.write_text(lines[1])
    (tmp_path / "prompts.parquet").unlink()
    with pytest.raises(InputError, match="none of 1 given responses can be used; the first: row '0': column"):
        prompts(tmp_path, data, **chat)
    assert not (tmp_path / "prompts.parquet").exists()


ROW = {"question": "a", "answer": "1"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([ROW, {**ROW, "question": None}], "row '1': column 'question': there is no question"),
        ([ROW, {**ROW, "answer": None}], "row '1': column 'answer': no gold answer"),
        ([{**ROW, "answer": {"value": "1"}}], "--data.label_key: column 'answer' holds values of type struct<"),
        ([{**ROW, "answer": True}], "column 'answer' holds true and false"),
        ([{**ROW, "answer": ["1"]}], "column 'answer' holds values of type list<"),
        (
            [ROW, {**ROW, "question": ""}, {**ROW, "answer": " "}],
            "2 values cannot be used:\n  row '1': .*\n  row '2': ",
        ),
        ([{**ROW, "question": [5, -3]}], "row '0': column 'question': token id -3 at position 1: the tokenizer has"),
        ([{**ROW, "question": [5, 10**6]}], "token id 1000000 at position 1: the tokenizer has"),
        ([{**ROW, "question": [True, False]}], r"row '0': column 'question': \[True, False\] is no text"),
        ([{**ROW, "id": 1.0}, {**ROW, "id": None}], "column 'id': row 1 has no id"),
        (
            [{**ROW, "id": "a"}, {**ROW, "id": None}, {**ROW, "id": "a"}],
            r"^2 values cannot be used:\n  column 'id': row 1 has no id\n  column 'id': id 'a' occurs more than",
        ),
        ([{**ROW, "id": "a"}] * 20, r"^10 values cannot be used:(\n  column 'id': id 'a' occurs .*){10}$"),
        (
            [{**ROW, "id": "a"}, {**ROW, "id": "a"}, {**ROW, "id": "c", "answer": None, "question": "b"}],
            r"^2 values cannot be used:\n  column 'id': id 'a' occurs .*\n  row 'c': column 'answer': no gold answer$",
        ),
        (
            [{**ROW, "id": f"{n // 2}", "answer": " "} for n in range(12)],
            r"^10 values cannot be used:(\n  column 'id': id '.' occurs .*){6}(\n  row '.+': .* no gold answer){4}$",
        ),
        (
            [{**ROW, "id": {"n": 1}, "answer": True}],
            "does not fit the flags:\n  --data.label_key: .* true and false.*\n  --data.id_key: column 'id' holds",
        ),
        ([{**ROW, "id": {"n": 1}}], "--data.id_key: column 'id' holds values of type struct<"),
        (
            [{**ROW, "answer": " "}] * 20,
            "^10 values cannot be used:(\n  row '.': column 'answer': no gold answer){10}$",
        ),
    ],
)
def test_rows_that_cannot_be_used(rows: list[dict[str, Any]], told: str, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=told):
        prompts(tmp_path, data)
    assert not (tmp_path / "prompts.parquet").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"question": "a", "answer": 1}\n{"question": "b", "ans', "line 2 is no JSON: .* column"),
        (b'{"question": "a \\ud83d", "answer": 1}\n', r"line 1 has half a character, \\ud83d"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_lines_that_do_not_load(content: bytes, told: str, suffix: str, tmp_path: Path) -> None:
    data = tmp_path / f"rows.{suffix}"
    data.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    with pytest.raises(InputError, match=f"--data.dataset: cannot load .*rows.{suffix}': {told}"):
        prompts(tmp_path, data)


def test_a_text_that_is_not_utf_8(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_bytes(b'{"question": "a", "answer": "1"}\n{"question": "\xff\xfe", "answer": "1"}\n')
    with pytest.raises(InputError, match="row '1': a text is not UTF-8: "):
        prompts(tmp_path, data)


def test_an_array_is_not_blamed_for_its_first_line(tmp_path: Path) -> None:
    data = tmp_path / "rows.json"
    data.write_text('[\n  {"question": "a", "answer": 1},\n  {"question": "b", "ans\n')
    with pytest.raises(InputError) as caught:
        prompts(tmp_path, data)
    assert "rows.json" in str(caught.value) and "line 1 " not in str(caught.value)
