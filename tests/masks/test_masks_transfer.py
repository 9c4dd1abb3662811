"""`masks transfer` as a command: data sets to other tokenizers and back, trained on, and picked by probability."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from masks_data import annotate, written
from test_masks_carry import comes_back
from tokenizer_families import FAMILIES
from tokenizers import AddedToken
from train_helpers import Strategy
from transfer_helpers import TEXTS, load, run

from openrlhf_cft.cli.masks import main
from openrlhf_cft.data.records import (
    ALTERNATIVES,
    ID,
    MASK,
    PROMPT,
    PROMPT_IDS,
    RESPONSE,
    RESPONSE_IDS,
    read_metadata,
    read_rows,
    tokenizer_fingerprint,
)
from openrlhf_cft.data.token_text import decode
from openrlhf_cft.masks.carry import layout
from openrlhf_cft.train.dataset import CriticalTokenDataset
from openrlhf_cft.train.row_checks import columns_to_read, count_tokens


@pytest.mark.parametrize(
    ("one", "other"), [("metaspace", "byte_level"), ("byte_level", "unigram"), ("unigram", "metaspace")]
)
def test_there_and_back(models: dict[str, str], one: str, other: str, tmp_path: Path) -> None:
    first, second = load(models[one]), load(models[other])
    source = written(tmp_path / "in", first, TEXTS, models[one])
    before = list(read_rows(source))
    there, figures = run(source, models[other], tmp_path / "there")
    back, _ = run(tmp_path / "there", models[one], tmp_path / "back")
    assert len(there) == len(back) == figures["rows"] == len(TEXTS) and figures["rows_dropped"] == {}
    assert figures["coverage"] == 1 and figures["characters"]["recall"] == 1 and not figures["same_tokenizer"]
    for old, new, again in zip(before, there, back, strict=True):
        assert decode(second, new[RESPONSE_IDS]) == new[RESPONSE] == old[RESPONSE]
        assert decode(second, new[PROMPT_IDS]) == new[PROMPT] == old[PROMPT]
        assert (again[RESPONSE_IDS], again[PROMPT_IDS]) == (old[RESPONSE_IDS], old[PROMPT_IDS])
        assert new[RESPONSE_IDS][-1] == second.eos_token_id and new[MASK][-1] == old[MASK][-1]
        layouts = [layout(load, row[RESPONSE_IDS], old[RESPONSE]) for load, row in ((first, old), (second, new))]
        assert (again[MASK] == old[MASK]) == comes_back(layouts[0], old[MASK], layouts[1])
    metadata = read_metadata(tmp_path / "back") or {}
    assert (metadata["model"], metadata["tokenizer_fingerprint"]) == (models[one], tokenizer_fingerprint(first))
    assert metadata["transferred"]["metadata"]["transferred"]["metadata"]["model"] == models[one], "where it came from"


def test_numbers_of_a_users_own(models: dict[str, str], tmp_path: Path) -> None:
    """Weights a token are carried wherever they come from; other numbers a token are lost; the rest stays."""
    source = written(tmp_path / "in", load(models["byte_level"]), TEXTS, models["byte_level"])
    file = next(source.glob("*.parquet"))
    table = pq.read_table(file)
    masks = table.column(MASK).to_pylist()
    mine = {
        "mine": masks,
        "logprobs": [[-1.0 for _ in mask] for mask in masks],
        "kinds": [[7] * len(m) for m in masks],
    }
    mine |= {"embedding": [[0.5] * 3] * len(masks), "pair": [[1, 2]] * len(masks)}
    for name, values in mine.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, file)
    there, _ = run(source, models["metaspace"], tmp_path / "there")
    for row in there:
        assert row["mine"] == row[MASK] and row["logprobs"] is row["kinds"] is None
        assert row["embedding"] == [0.5] * 3 and row["pair"] == [1, 2]
    same, _ = run(source, models["byte_level"], tmp_path / "same")
    assert [row["logprobs"] for row in same] == mine["logprobs"]


def test_figures_count_what_is_there(models: dict[str, str], tmp_path: Path) -> None:
    """Against a count over all pairs of tokens and over all characters."""
    first, second = load(models["byte_level"]), load(models["metaspace"])
    source = written(tmp_path / "in", first, TEXTS, models["byte_level"], critical=0.2)
    rows, figures = run(source, models["metaspace"], tmp_path / "out")
    critical = both = only_a = only_b = neither = 0
    for old, new in zip(read_rows(source), rows, strict=True):
        characters = []
        for tokenizer, row in ((first, old), (second, new)):
            spans = layout(tokenizer, row[RESPONSE_IDS], old[RESPONSE]).spans
            marked = {at for span, w in zip(spans, row[MASK], strict=True) if w for at in range(*span)}
            characters.append(marked)
        critical += sum(old[MASK])
        ends = len(old[RESPONSE]) + 1
        both, only_a = both + len(characters[0] & characters[1]), only_a + len(characters[0] - characters[1])
        only_b += len(characters[1] - characters[0])
        neither += ends - len(characters[0] | characters[1])
    assert (figures["critical_tokens"], figures["critical_tokens_carried"]) == (critical, critical)
    counted = figures["characters"]
    assert (counted["both"], counted["only_a"], counted["only_b"], counted["neither"]) == (both, 0, only_b, neither)
    assert only_a == 0 and only_b > 0


def test_training_takes_it(models: dict[str, str], tmp_path: Path) -> None:
    source = written(tmp_path / "in", load(models["byte_level"]), TEXTS, models["byte_level"])
    rows, _ = run(source, models["metaspace"], tmp_path / "out")
    table = pq.read_table(tmp_path / "out", columns=columns_to_read(list(rows[0]), MASK))
    counts = count_tokens(table, MASK, 10_000)
    assert counts.trained_R.tolist() == [sum(weight > 0 for weight in row[MASK]) for row in rows]
    assert counts.response_R.tolist() == [len(row[RESPONSE_IDS]) for row in rows]
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=tmp_path / "cache")["train"]
    dataset = CriticalTokenDataset(loaded, load(models["metaspace"]), 10_000, Strategy())
    usable = [row for row in rows if any(row[MASK])]
    assert len(dataset) == len(usable) > 0
    assert dataset[0][0][0].tolist() == usable[0][PROMPT_IDS] + usable[0][RESPONSE_IDS]


def changed(source: Path, column: str, values: list[Any]) -> None:
    """Put other values into a column."""
    table = pq.read_table(source)
    at = table.schema.get_field_index(column)
    new = pa.array(values, table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), new), source / "part-0.parquet")


def test_rows_that_cannot_be_carried_are_counted(models: dict[str, str], tmp_path: Path) -> None:
    tokenizer = load(models["byte_level"])
    texts = [*TEXTS[:6], "Ж is no letter of this one"]
    source = written(tmp_path / "in", tokenizer, texts, models["byte_level"])
    rows = list(read_rows(source))
    masks, ids = [row[MASK] for row in rows], [row[RESPONSE_IDS] for row in rows]
    masks[1] = None
    ids[2] = [tokenizer.eos_token_id, *ids[2][1:]]
    ids[3], masks[3] = [], []
    changed(source, MASK, masks)
    changed(source, RESPONSE_IDS, ids)
    changed(source, PROMPT, ["", *[row[PROMPT] for row in rows[1:5]], "Ж", rows[6][PROMPT]])
    found, figures = run(source, models["unigram"], tmp_path / "out")
    assert [row[ID] for row in found] == ["row-4"] and figures["rows"] == 1
    assert figures["rows_dropped"] == {
        "the prompt is empty": 1,
        "the prompt has characters that the target's tokenizer does not know": 1,
        "the row has no weights": 1,
        "a special token is inside the response": 1,
        "the response has no token": 1,
        "the tokens do not spell the text": 1,
    }
    assert figures["critical_tokens"] == sum(sum(mask or []) for mask in masks)
    assert figures["critical_tokens_carried"] == sum(masks[4])
    written(tmp_path / "none", tokenizer, texts[-1:], models["byte_level"])
    with pytest.raises(ValueError, match=r"no row of .* can be carried to .*: 1 because the tokens do not spell"):
        run(tmp_path / "none", models["unigram"], tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_prompts_are_rendered_by_the_targets_template(models: dict[str, str], tmp_path: Path) -> None:
    source = written(tmp_path / "in", load(models["byte_level"]), TEXTS, models["byte_level"])
    table = pq.read_table(source)
    questions = [f"What is {n}?" for n in range(len(TEXTS) - 1)] + [None]
    pq.write_table(table.append_column("question", pa.array(questions)), source / "part-0.parquet")
    flags = ["--data.input_key", "question", "--data.apply_chat_template"]
    rows, figures = run(source, models["metaspace"], tmp_path / "out", *flags)
    target = load(models["metaspace"])
    assert figures["rows_dropped"] == {"the column of --data.input_key is empty": 1}
    for number, row in enumerate(rows):
        assert row[PROMPT] == f"<user> What is {number}?\n<assistant> "
        assert row[PROMPT_IDS] == target(row[PROMPT], add_special_tokens=False)["input_ids"]
        assert row[RESPONSE] == TEXTS[number] and decode(target, row[RESPONSE_IDS]) == row[RESPONSE]
    same, figures = run(source, models["byte_level"], tmp_path / "same", *flags)
    assert figures["same_tokenizer"] and same[3][PROMPT] == "<user> What is 3?\n<assistant> "
    assert [row[RESPONSE_IDS] for row in same] == [row[RESPONSE_IDS] for row in read_rows(source)][:-1]
    templated, _ = run(source, models["metaspace"], tmp_path / "out2", *flags[:2], "--data.input_template", "Q: {} A:")
    assert templated[0][PROMPT] == "Q: What is 0? A:"


def test_a_prompt_with_foreign_special_tokens_is_refused(models: dict[str, str], tmp_path: Path) -> None:
    tokenizer = load(models["byte_level"])
    tokenizer.add_tokens([AddedToken("<turn>", special=True)])  # without a role, as the headers of Llama 3
    tokenizer.save_pretrained(tmp_path / "chat")
    source = written(tmp_path / "in", tokenizer, TEXTS, str(tmp_path / "chat"))
    marked = "<turn>What is 0?"
    changed(source, PROMPT, [marked] * len(TEXTS))
    changed(source, PROMPT_IDS, [tokenizer(marked)["input_ids"]] * len(TEXTS))
    with pytest.raises(ValueError, match=r"row 'row-0': the prompt holds '<turn>', .*--data.input_key question"):
        run(source, models["metaspace"], tmp_path / "out")
    other = load(models["metaspace"])
    other.add_tokens([AddedToken("<turn>", special=True)])
    other.save_pretrained(tmp_path / "other")
    rows, _ = run(source, str(tmp_path / "other"), tmp_path / "out")
    assert rows[0][PROMPT_IDS][0] == other.convert_tokens_to_ids("<turn>") and rows[0][PROMPT] == marked


def test_the_same_tokenizer_changes_nothing_but_the_model(models: dict[str, str], tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 3)
    table = pq.read_table(source)
    tokenizer = load(models["byte_level"])
    metadata = {**(read_metadata(source) or {}), "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer)}
    stored = table.replace_schema_metadata({b"openrlhf_cft": json.dumps(metadata).encode(), b"other": b"kept"})
    pq.write_table(stored, source / "part-0.parquet")
    _, figures = run(source, models["byte_level"], tmp_path / "out")
    after = pq.read_table(tmp_path / "out")
    assert after.equals(table) and after.schema.metadata[b"other"] == b"kept"
    assert figures["same_tokenizer"] and figures["coverage"] == 1 and figures["characters"]["agreement"] == 1
    found = read_metadata(tmp_path / "out") or {}
    assert found["model"] == models["byte_level"] and found["criterion"] == "strict-3" and found["verifier"] == "math"
    assert found["transferred"]["metadata"] == metadata


def test_other_columns(models: dict[str, str], tmp_path: Path) -> None:
    """Derived weights go along, alternatives stay behind, everything else is as it was."""
    source = written(tmp_path / "in", load(models["byte_level"]), TEXTS, models["byte_level"])
    main(["derive", str(source), "--column", "r", "--how", "random", "--out", str(tmp_path / "derived")])
    table = pq.read_table(tmp_path / "derived")
    extra = {"note": pa.array([[n, None] for n in range(len(TEXTS))]), ALTERNATIVES: pa.array([[[{"rank": 2}]]] * 30)}
    for name, values in extra.items():
        table = table.append_column(name, values)
    pq.write_table(table, tmp_path / "derived" / "part-00000.parquet")
    rows, _ = run(tmp_path / "derived", models["metaspace"], tmp_path / "out")
    after = pq.read_table(tmp_path / "out")
    assert after.schema.names == table.schema.names and after["note"].equals(table["note"])
    assert after[ALTERNATIVES].null_count == len(TEXTS)
    assert after.schema.field(ALTERNATIVES).type == table.schema.field(ALTERNATIVES).type
    assert all(len(row["r"]) == len(row[RESPONSE_IDS]) and sum(row["r"]) > 0 for row in rows)
    assert any(row["r"] != row[MASK] for row in rows)
    metadata = read_metadata(tmp_path / "out") or {}
    assert metadata["derived"]["r"]["how"] == "random"
    main(["compare", str(tmp_path / "out"), "--mask_b", "r"])


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--threshold", "0.1"], "--threshold: add --method score"),
        (["--method", "score", "--count", "2", "--share", "0.1"], "--count and --share: one of them"),
        (["--method", "score", "--count", "none"], "--count: 'none' is neither same nor a number"),
        (["--method", "score", "--count", "0"], "--count: '0' is neither same nor a number"),
        (["--method", "score", "--threshold", "1.5"], "--threshold: 1.5 is no probability above 0"),
        (["--method", "score", "--share", "2"], "--share: 2.0 must be between 0 and 1"),
        (["--data.apply_chat_template"], "--data.input_key: name the question's column"),
        (["--data.input_key", "nope"], "has no column 'nope'"),
        (["--data.input_key", "id", "--data.input_template", "x"], "--data.input_template: 'x' has to have {} once"),
        (["--data.input_key", PROMPT_IDS], "--data.input_key: 'prompt_token_ids' holds token ids"),
        (
            ["--model.model_name_or_path", "{unigram}"],
            "--model.model_name_or_path: the tokenizer of .* differs",
        ),
        (["--report", "x.txt"], "--report: 'x.txt' does not end with .json"),
    ],
)
def test_bad_flags_are_one_sentence(models: dict[str, str], tmp_path: Path, flags: list[str], told: str) -> None:
    source = written(tmp_path / "in", load(models["byte_level"]), TEXTS[:2], models["byte_level"])
    given = [flag.format(**models) if flag == "{unigram}" else flag for flag in flags]
    with pytest.raises(ValueError, match=told):
        main(["transfer", str(source), "--to", models["metaspace"], "--out", str(tmp_path / "out"), *given])
    assert not (tmp_path / "out").exists()


def test_a_target_without_a_tokenizer_or_an_end(models: dict[str, str], tmp_path: Path) -> None:
    source = written(tmp_path / "in", load(models["byte_level"]), TEXTS[:2], models["byte_level"])
    with pytest.raises(ValueError, match="--to: cannot load '/nowhere': there is no such folder"):
        run(source, "/nowhere", tmp_path / "out")
    endless = load(models["metaspace"])
    endless.eos_token = None
    endless.save_pretrained(tmp_path / "endless")
    with pytest.raises(ValueError, match="--to: the tokenizer has no EOS token"):
        run(source, str(tmp_path / "endless"), tmp_path / "out")
    plain = FAMILIES["metaspace"]()
    plain.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"--data.apply_chat_template: the tokenizer of --to has no chat template"):
        run(source, str(tmp_path / "plain"), tmp_path / "out", "--data.input_key", "id", "--data.apply_chat_template")
