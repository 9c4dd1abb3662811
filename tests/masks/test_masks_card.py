"""The card of a data set: what it is, how it was made and is loaded, what is probably wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from export_helpers import critical_rows, export
from huggingface_hub import DatasetCard

from openrlhf_cft.cli.masks import main
from openrlhf_cft.data.annotated import open_data, with_record
from openrlhf_cft.data.records import MASK, PROMPT_IDS, RESPONSE_IDS
from openrlhf_cft.masks.dataset_card import CardSettings, render, size_category
from openrlhf_cft.masks.stats import stats


def test_the_card_says_what_it_is_and_how_to_load_it(annotated: Path, model: Path, tmp_path: Path) -> None:
    flags = ["--license", "apache-2.0", "--language", "en", "de"]
    for kind in ("trl", "axolotl", "llamafactory", "sharegpt", "jsonl"):
        export(annotated, tmp_path / kind, kind, *flags)
        card = DatasetCard.load(tmp_path / kind / "README.md")
        front = card.data.to_dict()
        assert front["license"] == "apache-2.0" and front["language"] == ["en", "de"]
        assert front["task_categories"] == ["text-generation"] and front["size_categories"] == ["n<1K"]
        assert "critical-tokens" in front["tags"] and front["configs"][0]["config_name"] == "default"
        assert "| responses | 6 |" in card.text and "| criterion | strict-3 |" in card.text
        assert "| decoding: max new tokens | 32 |" in card.text and "openrlhf_cft 0.1.0" in card.text
        assert str(model.parent) not in card.content and "{" not in card.text.replace("{{", "")
    longest = max(len(row[PROMPT_IDS]) + len(row[RESPONSE_IDS]) for row in critical_rows(annotated))
    assert f"max_length={longest}" in (tmp_path / "trl" / "README.md").read_text()
    assert "    type:\n" in (tmp_path / "axolotl" / "README.md").read_text()


def test_the_card_of_an_annotated_data_set(annotated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["card", str(annotated)])
    printed = capsys.readouterr().out
    main(["card", str(annotated), "--out", str(annotated / "README.md")])
    card = DatasetCard.load(annotated / "README.md")
    assert card.content == printed and "| `question`, `when`, `size` | of the source" in printed
    assert card.data.license == "unknown" and card.data.language is None
    assert len(datasets.load_dataset(str(annotated), split="train", cache_dir=str(annotated.parent / "cache"))) == 7
    with pytest.raises(ValueError, match=r"--out: .*README.md' is there already"):
        main(["card", str(annotated), "--out", str(annotated / "README.md")])


@pytest.mark.parametrize(
    ("critical", "criterion", "column", "hinted"),
    [
        (1.0, "strict-3", MASK, True),
        (0.3, "strict-3", MASK, False),
        (1.0, "score", MASK, False),
        (1.0, "strict-3", "weights", False),
    ],
)
def test_the_card_says_what_is_probably_wrong(
    annotated: Path, critical: float, criterion: str, column: str, hinted: bool
) -> None:
    """Of the mask that counterfactuals made, and of no other."""
    data = open_data(str(annotated))
    figures = {**stats(data, MASK), "critical_tokens": 100 * critical, "tokens": 100, "verdicts_of_alternatives": {}}
    stated = replace(data, schema=with_record(data.schema, "criterion", criterion))
    text = render(stated, column, figures, CardSettings(), "*.parquet", {"format": "annotated"})
    assert ("Probably wrong with these masks: over 50% of the tokens are critical" in text) == hinted


def test_the_card_says_how_a_derived_mask_was_made(annotated: Path, tmp_path: Path) -> None:
    main(["derive", str(annotated), "--out", str(tmp_path / "out"), "--column", "chance", "--how", "random"])
    main(["card", str(tmp_path / "out"), "--mask", "chance", "--out", str(tmp_path / "README.md")])
    text = DatasetCard.load(tmp_path / "README.md").text
    assert "| derived: how | random |" in text and "| derived: seed | 42 |" in text
    assert "| column of the weights | `chance` |" in text and "--critical_mask chance" in text


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (99_999, "10K<n<100K"),
        (100_000, "100K<n<1M"),
        (10**9, "1B<n<10B"),
    ],
)
def test_size_categories_are_the_hubs(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_no_value_leaves_its_line_and_no_path_is_shown(annotated: Path) -> None:
    data = open_data(str(annotated))
    source = {"dataset": "data/a.jsonl, /home/me/secret/b.jsonl,/home/me/c.jsonl"}
    source["input_template"] = "User: {}\nAssistant: "
    hostile = {"source": source, "model": "x\n---\nlicense: mit\n---\n# Owned", "criterion": "a\n\n# b"}
    for key, value in hostile.items():
        data = replace(data, schema=with_record(data.schema, key, value))
    figures = {**stats(data, MASK), "verdicts_of_alternatives": {}}
    card = render(data, MASK, figures, CardSettings(), "*.parquet", {"format": "annotated"})
    assert "| source: input template | User: {} Assistant: |" in card
    assert "| source: dataset | data/a.jsonl,b.jsonl,c.jsonl |" in card and "secret" not in card
    assert not [line for line in card.splitlines() if line.startswith(("# Owned", "# b", "license: mit"))]
