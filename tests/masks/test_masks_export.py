"""Exports: TRL trains on them with our loss, spans are exact in every tokenizer family, nothing is half written."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_helpers import critical_rows, export
from export_on_real_data import check_same_step, our_step, threads, trl_step
from hypothesis import given
from hypothesis import strategies as st
from properties import tries
from tokenizer_families import FAMILIES
from train_helpers import make_rows, write_rows

from openrlhf_cft.cli.masks import main
from openrlhf_cft.data.annotated import open_data
from openrlhf_cft.data.loss_mask import labels
from openrlhf_cft.data.records import ID, MASK, METADATA_KEY, PROMPT, PROMPT_IDS, RESPONSE, RESPONSE_IDS
from openrlhf_cft.data.token_text import Kind, Piece, decode, pieces
from openrlhf_cft.masks.conversation import question_column, spans


def test_trl_trains_a_step_with_our_loss(annotated: Path, model: Path, tmp_path: Path) -> None:
    export(annotated, tmp_path / "out", "trl")
    data = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert data.column_names == ["input_ids", "labels"]
    with threads(1):
        ours = our_step(model, critical_rows(annotated))
        check_same_step(ours, trl_step(model, data, tmp_path / "one", batch=6, accumulate=1))
        check_same_step(ours, trl_step(model, data, tmp_path / "three", batch=2, accumulate=3))
        # Whole responses and prompts, as TRL trains without labels, are another loss: the comparison can fail.
        unmasked = trl_step(model, data.remove_columns("labels"), tmp_path / "none", batch=6, accumulate=1)
    assert abs(unmasked[0] - ours[0]) > 0.01


def test_labels_are_the_mask_in_every_pre_tokenized_format(annotated: Path, tmp_path: Path) -> None:
    wanted = [labels(row[PROMPT_IDS], row[RESPONSE_IDS], row[MASK]) for row in critical_rows(annotated)]
    full = [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": kept} for ids, kept in wanted]
    assert export(annotated, tmp_path / "axolotl", "axolotl") == full
    assert [json.loads(line) for line in (tmp_path / "axolotl" / "train.jsonl").read_text().splitlines()] == full
    export(annotated, tmp_path / "llamafactory", "llamafactory")
    assert sorted(path.name for path in (tmp_path / "llamafactory").iterdir()) == [
        "README.md",
        "dataset_info.json",
        "tokenized",
        "train.json",
    ]
    assert list(datasets.load_from_disk(str(tmp_path / "llamafactory" / "tokenized"))["train"]) == full
    assert export(annotated, tmp_path / "trl", "trl") == [{k: row[k] for k in ("input_ids", "labels")} for row in full]


def test_conversations_have_the_question_and_the_spans(annotated: Path, model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    found = export(annotated, tmp_path / "llamafactory", "llamafactory")
    assert found == json.loads((tmp_path / "llamafactory" / "train.json").read_text())
    (info,) = json.loads((tmp_path / "llamafactory" / "dataset_info.json").read_text()).values()
    assert info == {"file_name": "train.json", "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    tokenizer = AutoTokenizer.from_pretrained(model)
    for row, conversation in zip(critical_rows(annotated), found, strict=True):
        question = {"from": "human", "value": f"How many, {row[ID]}?"}
        assert conversation["conversations"] == [question, {"from": "gpt", "value": row[RESPONSE]}]
        wanted = spans(pieces(tokenizer, row[RESPONSE_IDS]), row[MASK])
        assert conversation["critical_spans"] == [{"message": 1, **vars(span)} for span in wanted]
    assert export(annotated, tmp_path / "sharegpt", "sharegpt") == found
    rendered = export(annotated, tmp_path / "rendered", "sharegpt", "--data.input_key", PROMPT)
    assert rendered[0]["conversations"][0]["value"] == "<user>row-0<assistant>"


def test_the_question_is_found_after_other_verbs(annotated: Path) -> None:
    data = open_data(annotated)
    chat = {"input_key": "question", "apply_chat_template": True}
    plain = {"input_key": "question", "apply_chat_template": False}
    for metadata, column in (
        ({"source": chat}, "question"),
        ({"source": plain}, None),
        ({}, None),
        ({"source": {**chat, "input_key": PROMPT}}, None),  # whose column is the rendered prompt now
        ({"transferred": {"metadata": {"source": chat}}}, "question"),
        ({"transferred": {"rendering": plain, "metadata": {"source": chat}}}, None),
        ({"source": plain, "transferred": {"rendering": chat, "metadata": {}}}, "question"),  # to the same tokenizer
        ({"source": chat, "transferred": {"metadata": {}}}, "question"),
        (
            {"source": plain, "transferred": {"metadata": {"transferred": {"rendering": chat}}}},
            "question",
        ),  # the first
    ):
        schema = data.schema.with_metadata({METADATA_KEY: json.dumps(metadata).encode()})
        assert question_column(replace(data, schema=schema)) == column


def test_messages_become_turns(annotated: Path, tmp_path: Path) -> None:
    file = annotated / "part-0.parquet"
    table = pq.read_table(file)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    pq.write_table(table.append_column("messages", pa.array([messages] * 7)), file)
    found = export(annotated, tmp_path / "out", "sharegpt", "--data.input_key", "messages")
    turns = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "2 + 2?"}]
    assert found[0]["conversations"][:2] == turns and found[0]["critical_spans"][0]["message"] == 2
    with pytest.raises(ValueError, match=r"row 'row-0': 1\.5 in column 'size' is neither a text nor messages of text"):
        export(annotated, tmp_path / "other", "sharegpt", "--data.input_key", "size")


def reference_spans(response: str, offsets: list[tuple[int, int]], weights: list[float]) -> list[float]:
    """Weights of characters by the definition: the largest of the tokens there."""
    return [
        max((w for (start, end), w in zip(offsets, weights, strict=True) if start <= at < end), default=0.0)
        for at in range(len(response))
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_spans_are_exact(family: str) -> None:
    tokenizer = FAMILIES[family]()
    special = set(tokenizer.all_special_ids)

    @tries(100)
    @given(st.text(alphabet="The answr 12+=ü€数🎉👩‍\n", max_size=20), st.data())
    def check(text: str, data: st.DataObject) -> None:
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        size = len(ids)
        weights = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=size, max_size=size))
        tokens = pieces(tokenizer, ids)
        found = spans(tokens, weights)
        response = decode(tokenizer, ids)
        characters = [0.0] * len(response)
        for span in found:
            assert 0 <= span.start <= span.end <= len(response) and span.weight > 0
            for at in range(span.start, span.end):
                assert characters[at] == 0, "spans do not overlap"
                characters[at] = span.weight
        assert characters == reference_spans(response, [(piece.start, piece.end) for piece in tokens], weights)
        order = [(span.start, span.end) for span in found]
        assert order == sorted(order)
        runs = [span for span in found if span.start < span.end]
        for left, right in itertools.pairwise(runs):
            assert left.end < right.start or left.weight != right.weight, "of one weight they would be one span"
        # And back: a token alone in its characters has the weight of its span, and the end of the turn its own.
        assert [s.weight for s in found if s.start == s.end == len(response)] == [w for w in weights[-1:] if w]
        for piece, token, weight in zip(tokens, ids, weights, strict=True):
            alone = [at for at in range(piece.start, piece.end) if sum(p.start <= at < p.end for p in tokens) == 1]
            assert token in special or all(characters[at] == weight for at in alone)

    check()


def test_each_token_without_text_is_a_span_of_its_own() -> None:
    places = [(0, 2), (2, 2), (2, 2), (2, 2), (2, 3), (3, 3), (3, 3)]
    tokens = [Piece("", start, end, Kind.END, special=start == end, partial=False) for start, end in places]
    found = spans(tokens, [1.0, 0.5, 0.0, 0.25, 1.0, 0.5, 0.5])
    wanted = [(0, 2, 1.0), (2, 2, 0.5), (2, 2, 0.25), (2, 3, 1.0), (3, 3, 0.5), (3, 3, 0.5)]
    assert [(span.start, span.end, span.weight) for span in found] == wanted


def test_what_is_left_out_is_counted(annotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = annotated / "part-0.parquet"
    table = pq.read_table(file)
    weights = table[MASK].to_pylist()
    weights[5] = None
    column = table.schema.get_field_index(MASK)
    pq.write_table(table.set_column(column, table.schema.field(column), pa.array(weights, table[MASK].type)), file)
    assert len(export(annotated, tmp_path / "out", "jsonl")) == 5
    printed = capsys.readouterr().out
    assert "5 rows, " in printed and "1 rows without weights are left out" in printed
    assert "1 rows without a critical token are left out" in printed
    assert "| responses without a critical token, left out | 1 |" in (tmp_path / "out" / "README.md").read_text()
    assert len(export(annotated, tmp_path / "all", "trl", "--keep_empty")) == 6
    assert "critical token are left out" not in capsys.readouterr().out


def test_float_weights_are_refused_where_they_would_be_lost(tmp_path: Path, model: Path) -> None:
    rows = make_rows(3)
    rows[1][MASK] = [0.25, 0.75, *rows[1][MASK][2:]]
    path = write_rows(tmp_path / "in", [{**row, PROMPT: "x"} for row in rows], {"model": str(model)})
    message = "row 'row-1': column 'critical_mask': weight 0.25 at response position 0: labels can only say 0 or 1; --"
    for kind in ("trl", "axolotl", "llamafactory"):
        with pytest.raises(ValueError, match=message):
            export(path, tmp_path / "out", kind)
        assert [file.name for file in tmp_path.iterdir()] == ["in"]
    found = export(path, tmp_path / "thresholded", "trl", "--threshold", "0.5")
    start = len(rows[1][PROMPT_IDS])
    assert found[1]["labels"][start : start + 2] == [-100, rows[1][RESPONSE_IDS][1]]
    assert "a weight of at least 0.5" in (tmp_path / "thresholded" / "README.md").read_text()
    kept = export(path, tmp_path / "spans", "sharegpt")
    assert [span["weight"] for span in kept[1]["critical_spans"]][:2] == [0.25, 0.75]


@pytest.mark.parametrize("weight", [0.1, 0.7, 0.9])
def test_a_weight_equal_to_the_threshold_counts(tmp_path: Path, model: Path, weight: float) -> None:
    rows = [{**row, PROMPT: "x", MASK: [weight, 0.0, *[weight - 0.01] * (len(row[MASK]) - 2)]} for row in make_rows(3)]
    path = write_rows(tmp_path / "in", rows, {"model": str(model)})
    found = export(path, tmp_path / "out", "trl", "--threshold", str(weight))
    assert [sum(label != -100 for label in row["labels"]) for row in found] == [1, 1, 1]


def test_all_columns_go_into_jsonl(annotated: Path, tmp_path: Path) -> None:
    export(annotated, tmp_path / "out", "jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    for line, row in zip(lines, critical_rows(annotated), strict=True):
        assert line.keys() == row.keys() and line["when"] == "2026-01-02 00:00:00"
        assert all(line[name] == row[name] for name in row if name not in ("when", "size"))
    assert [line["size"] for line in lines] == [1.5, None, None, 1.0, 2.0, 3.0]


def test_bad_input_is_refused_in_a_sentence(annotated: Path, tmp_path: Path) -> None:
    for flags, message in (
        (["--format", "jsonl", "--mask", "nowhere"], "no column 'nowhere'"),
        (["--format", "trl", "--threshold", "0"], "--threshold: 0.0 is not above 0"),
        (["--format", "jsonl", "--threshold", "0.5"], "--threshold: jsonl carries all columns as they are"),
        (["--format", "sharegpt", "--data.input_key", "x"], "no column 'x'"),
        (["--format", "trl", "--data.input_key", "question"], "--data.input_key: trl has no conversations"),
        (["--format", "trl", "--out", str(annotated / "below")], "overlap: give another"),
        (["--format", "trl", "--out", "gs://bucket/out"], "is no local folder"),
    ):
        with pytest.raises(ValueError, match=message):
            main(["export", str(annotated), "--out", str(tmp_path / "out"), *flags])
    empty = write_rows(tmp_path / "empty", [{**row, MASK: [0.0] * len(row[MASK])} for row in make_rows(2)])
    for kind in ("trl", "axolotl", "jsonl"):
        with pytest.raises(ValueError, match=r"no row of .*empty' has a critical token in column 'critical_mask'"):
            main(["export", str(empty), "--format", kind, "--out", str(tmp_path / "out")])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "in"]
