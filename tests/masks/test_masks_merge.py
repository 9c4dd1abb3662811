"""`masks merge`: columns, ids that occur again, tokenizers, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from train_helpers import make_model, make_rows, write_rows
from transformers import AutoTokenizer

from openrlhf_cft.cli.masks import main
from openrlhf_cft.data.annotated import open_data
from openrlhf_cft.data.records import (
    ID,
    MASK,
    RESPONSE_IDS,
    read_metadata,
    read_rows,
    tokenizer_fingerprint,
)


def test_merge_puts_columns_together(tmp_path: Path) -> None:
    shared = {"model": "m", "tokenizer_fingerprint": "f"}
    first = write_rows(tmp_path / "a", make_rows(5), {**shared, "criterion": "strict-3"})
    second = write_rows(tmp_path / "b", [{**row, ID: f"b{row[ID]}"} for row in make_rows(4)], {**shared, "rows": 4})
    table = pq.read_table(second)
    table = table.append_column("note", pa.array(["x", None, "y", "z"])).append_column("small", pa.array([1] * 4))
    pq.write_table(table.select(table.column_names[::-1]), second / "part-0.parquet")
    pq.write_table(pq.read_table(first).append_column("small", pa.array([2] * 5, pa.int8())), first / "part-0.parquet")
    assert main(["merge", str(first), str(second), "--out", str(tmp_path / "out")]) == 0
    merged = pq.read_table(tmp_path / "out")
    one, two = pq.read_table(first), pq.read_table(second)
    assert merged.num_rows == 9 and merged["note"].to_pylist() == [None] * 5 + ["x", None, "y", "z"]
    assert merged["small"].to_pylist() == [2] * 5 + [1] * 4 and merged.schema.field("small").type == pa.int64()
    for name in one.column_names[:-1]:
        assert merged[name].to_pylist() == one[name].to_pylist() + two[name].to_pylist()
    metadata = read_metadata(tmp_path / "out") or {}
    assert metadata["model"] == "m" and "criterion" not in metadata, "what all agree on"
    assert [part["name"] for part in metadata["merged"]] == [str(first), str(second)]
    assert metadata["merged"][0]["criterion"] == "strict-3"
    words = ["--column", "r", "--how", "random", "--out", str(tmp_path / "c")]
    assert main(["derive", str(second), *words]) == 0
    assert main(["merge", str(first), str(tmp_path / "c"), "--out", str(tmp_path / "out2")]) == 0
    assert (read_metadata(tmp_path / "out2") or {})["derived"]["r"]["how"] == "random"
    assert [row["r"] is None for row in read_rows(tmp_path / "out2")] == [True] * 5 + [False] * 4


@pytest.mark.parametrize("how", ["first", "distinct"])
def test_merge_decides_about_ids_that_occur_again(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(6)
    first = write_rows(tmp_path / "a", rows)
    other = [{**rows[0], MASK: [0.0] * len(rows[0][MASK])}, {**make_rows(1, seed=9)[0], ID: "row-1"}]
    third = [{**make_rows(1, seed=8)[0], ID: "row-1"}, other[1], {**rows[5], ID: "row-1#2"}]
    second = write_rows(tmp_path / "b", [*other, *third])
    flags = ["--on_duplicate", how, "--out", str(tmp_path / "out")]
    assert main(["merge", str(first), str(second), *flags]) == 0
    merged = list(read_rows(tmp_path / "out"))
    told = capsys.readouterr().out
    if how == "first":
        assert [row[ID] for row in merged] == [*(row[ID] for row in rows), "row-1#2"]
        assert [row[MASK][0] for row in merged] == [pytest.approx(row[MASK][0]) for row in [*rows, third[2]]]
        assert "4 dropped and 0 renamed" in told
    else:
        assert [row[ID] for row in merged[6:]] == ["row-1#2", "row-1#3", "row-1#2#2"]
        assert [row[RESPONSE_IDS] for row in merged[6:]] == [
            row[RESPONSE_IDS] for row in (other[1], third[0], third[2])
        ]
        assert "2 dropped and 3 renamed" in told, "the same tokens again, with any mask, are one row"
    assert len({row[ID] for row in merged}) == len(merged)


def test_a_base_model_and_its_instruct_model_are_merged(tmp_path: Path) -> None:
    """Their fingerprints differ by special roles alone, as the tokenizer of either says; another's vocabulary does."""
    models = {"base": tmp_path / "base", "instruct": tmp_path / "instruct", "other": tmp_path / "other"}
    make_model(models["base"])
    base = AutoTokenizer.from_pretrained(models["base"])
    base.add_tokens(["<|end|>"], special_tokens=True)
    base.save_pretrained(models["base"])
    instruct = AutoTokenizer.from_pretrained(models["base"])
    instruct.eos_token = "<|end|>"
    instruct.save_pretrained(models["instruct"])
    other = AutoTokenizer.from_pretrained(models["base"])
    other.add_tokens(["<think>"])
    other.save_pretrained(models["other"])
    sets = {}
    for name, tokenizer in (("base", base), ("instruct", instruct), ("other", other)):
        about = {"tokenizer_fingerprint": tokenizer_fingerprint(tokenizer), "model": str(models[name])}
        rows = [{**row, ID: f"{name}-{row[ID]}"} for row in make_rows(3)]
        sets[name] = write_rows(tmp_path / f"{name}-rows", rows, about)
    assert tokenizer_fingerprint(base) != tokenizer_fingerprint(instruct)
    for name, first, second in (("a", "base", "other"), ("b", "other", "base")):
        with pytest.raises(ValueError, match="have different tokenizers; masks transfer"):
            main(["merge", str(sets[first]), str(sets[second]), "--out", str(tmp_path / name)])
    unknown = write_rows(tmp_path / "unknown", [{**row, ID: f"u-{row[ID]}"} for row in make_rows(3)])
    assert main(["merge", str(sets["base"]), str(unknown), "--out", str(tmp_path / "with-unknown")]) == 0
    assert "tokenizer_fingerprint" not in open_data(str(tmp_path / "with-unknown")).metadata
    assert main(["merge", str(sets["base"]), str(sets["instruct"]), "--out", str(tmp_path / "out")]) == 0
    merged = open_data(str(tmp_path / "out"))
    assert merged.count() == 6
    assert merged.metadata["tokenizer_fingerprint"] == tokenizer_fingerprint(base)
    shutil.rmtree(models["base"])
    for first, second in (("base", "other"), ("other", "base")):  # one model is here: it knows the other's ids, or not
        with pytest.raises(ValueError, match="have different tokenizers; masks transfer"):
            main(["compare", str(sets[first]), str(sets[second])])
    assert main(["compare", str(sets["base"]), str(sets["instruct"])]) == 0
    with pytest.raises(ValueError, match=r"instruct-rows.*other-rows.*have different tokenizers; masks transfer"):
        main(["merge", *map(str, sets.values()), "--out", str(tmp_path / "second")])
    shutil.rmtree(models["instruct"])
    with pytest.raises(ValueError, match=r"have different tokenizers as far as can be told \(no model of theirs is"):
        main(["merge", str(sets["base"]), str(sets["instruct"]), "--out", str(tmp_path / "second")])


def test_merges_that_are_refused(tmp_path: Path) -> None:
    rows = make_rows(3)
    first = write_rows(tmp_path / "a", rows, {"tokenizer_fingerprint": "f"})
    with pytest.raises(ValueError, match=r"id 'row-0' of .*a' is a duplicate: give --on_duplicate first or distinct"):
        main(["merge", str(first), str(first), "--out", str(tmp_path / "out")])
    second = write_rows(tmp_path / "b", rows, {"tokenizer_fingerprint": "g"})
    with pytest.raises(ValueError, match=r"tokenizer fingerprint f\) and .*\(g\) have different tokenizers"):
        main(["merge", str(first), str(second), "--out", str(tmp_path / "out")])
    third = write_rows(tmp_path / "c", rows)
    table = pq.read_table(third)
    pq.write_table(table.append_column("n", pa.array(["x"] * 3)), third / "part-0.parquet")
    pq.write_table(pq.read_table(first).append_column("n", pa.array([1, 2, 3])), first / "part-0.parquet")
    with pytest.raises(ValueError, match="a column has types that do not fit together"):
        main(["merge", str(first), str(third), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
