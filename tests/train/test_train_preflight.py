"""What the preflight refuses: one sentence that names the value, before a model loads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import openrlhf.datasets
import openrlhf.utils
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from train_helpers import Strategy, make_rows, make_training_folder, write_rows

from openrlhf_cft.data import records
from openrlhf_cft.errors import InputError
from openrlhf_cft.train import preflight, stock
from openrlhf_cft.train.arguments import Options


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_training_folder(tmp_path_factory.mktemp("preflight"))


def arguments(folder: Path, **changes: Any) -> SimpleNamespace:
    """The stock script's nested flags, with `data__dataset="x"` for `--data.dataset x`."""
    args = SimpleNamespace(
        data=SimpleNamespace(
            dataset=str(folder / "data"), max_len=64, max_samples=1000, multiturn=False, dataset_probs=None
        ),
        eval=SimpleNamespace(dataset=None),
        model=SimpleNamespace(model_name_or_path=str(folder / "model"), pretrain_mode_enable=False),
        ds=SimpleNamespace(ring_attn_size=1, tensor_parallel_size=1, deepcompile=False),
        use_ms=False,
        train=SimpleNamespace(batch_size=8, micro_batch_size=2, max_epochs=1),
    )
    for name, value in changes.items():
        group, _, field = name.partition("__")
        setattr(getattr(args, group), field, value)
    return args


def refusal(folder: Path, column: str = records.MASK, missing: str = "error", **changes: Any) -> str:
    with pytest.raises(InputError) as raised:
        preflight.check(arguments(folder, **changes), Options(column, missing))
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_good_input_passes(folder: Path) -> None:
    preflight.check(arguments(folder), Options())
    both = f"{folder / 'data'}, {folder / 'data' / 'part-0.parquet'}"
    preflight.check(arguments(folder, data__dataset=both, train__batch_size=48), Options())


@pytest.mark.parametrize("name", ["/nowhere/data", "./data", "data.parquet", "a/b/c"])
def test_a_data_set_that_is_not_there(folder: Path, name: str) -> None:
    assert refusal(folder, data__dataset=name) == f"data set {name!r} does not exist"
    assert refusal(folder, data__dataset=f"{folder / 'data'},{name}") == f"data set {name!r} does not exist"
    assert refusal(folder, eval__dataset=name) == f"data set {name!r} does not exist"


def test_a_data_set_that_the_hub_does_not_have(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset_builder(name: str, data_dir: str | None) -> None:
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub\nand a second line")

    monkeypatch.setattr("datasets.load_dataset_builder", load_dataset_builder)
    expected = (
        "data set 'org/name' is no local path and does not load from the hub: Couldn't reach 'org/name' on the Hub"
    )
    assert refusal(folder, data__dataset="org/name") == expected
    with_modelscope = arguments(folder, data__dataset="org/name")
    with_modelscope.use_ms = True  # its names are not the hub's: left to the stock script
    preflight.check(with_modelscope, Options())


def test_no_data_set_or_model(folder: Path) -> None:
    assert "--data.dataset is missing" in refusal(folder, data__dataset=None)
    assert "--model.model_name_or_path is missing" in refusal(folder, model__model_name_or_path=None)


def test_a_missing_column_names_those_that_there_are(folder: Path) -> None:
    message = refusal(folder, column="maks")
    assert f"data set '{folder / 'data'}' has no column 'maks'; its columns are critical_mask, id, prompt," in message


def test_a_bad_row_names_data_set_and_row(folder: Path, tmp_path: Path) -> None:
    rows = make_rows(9)
    rows[4][records.MASK].append(1.0)
    message = refusal(folder, data__dataset=str(write_rows(tmp_path, rows)))
    assert message.startswith(f"data set '{tmp_path}': row 'row-4': column 'critical_mask' has ")


def test_a_blend_in_which_some_rows_have_no_weights(folder: Path, tmp_path: Path) -> None:
    texts = [{"question": "one", "response": "two"}] * 9
    pq.write_table(pa.Table.from_pylist(texts), tmp_path / "texts.parquet")
    both = f"{folder / 'data'},{tmp_path / 'texts.parquet'}"
    for missing in ("train", "drop"):
        preflight.check(arguments(folder, data__dataset=both), Options(missing=missing))
    assert "texts.parquet' has no column 'critical_mask'" in refusal(folder, data__dataset=both)
    alone = str(tmp_path / "texts.parquet")
    assert refusal(folder, missing="train", data__dataset=alone) == (
        f"no row of --data.dataset {alone!r} has weights in column 'critical_mask'"
    )
    assert "has weights in column 'maks'" in refusal(folder, column="maks", missing="train", data__dataset=both)
    preflight.check(arguments(folder, eval__dataset=alone), Options(missing="train"))
    message = refusal(folder, missing="drop", data__dataset=both, train__batch_size=32)
    assert message.startswith("24 rows have a token to train, and one optimizer step takes more")


def test_without_a_column_nothing_is_asked_of_the_data(folder: Path) -> None:
    preflight.check(arguments(folder, data__dataset=None), Options(None, loss="dft"))


def test_another_tokenizer(folder: Path, tmp_path: Path) -> None:
    write_rows(tmp_path, make_rows(9), {"tokenizer_fingerprint": "0123456789abcdef"})
    message = refusal(folder, data__dataset=str(tmp_path))
    assert "was annotated with another tokenizer (fingerprint 0123456789abcdef)" in message


def test_every_file_of_a_data_set_is_checked(folder: Path, tmp_path: Path) -> None:
    write_rows(tmp_path, make_rows(9))
    rows = [{name: value for name, value in row.items() if name != records.MASK} for row in make_rows(2)]
    (write_rows(tmp_path / "other", rows) / "part-0.parquet").rename(tmp_path / "part-1.parquet")
    assert "has no column 'critical_mask'" in refusal(folder, data__dataset=str(tmp_path))
    assert "is an empty directory" in refusal(folder, data__dataset=str(tmp_path / "other"))


def test_a_token_id_beyond_the_vocabulary(folder: Path, tmp_path: Path) -> None:
    rows = make_rows(9)
    rows[0][records.PROMPT_IDS] = [512]
    message = refusal(folder, data__dataset=str(write_rows(tmp_path, rows)))
    assert message == f"data set '{tmp_path}' has token id 512, outside the model's vocabulary of 512: " + (
        "it was probably annotated with another model"
    )


def test_a_token_id_beyond_the_vocabulary_in_rows_that_only_openrlhf_reads(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON lines pass the preflight, and the data set that the stock script builds then knows the model's size."""
    lines, rows = tmp_path / "rows.jsonl", make_rows(9)
    rows[0][records.PROMPT_IDS] = [512]
    lines.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    args = arguments(folder, data__dataset=str(lines))
    sentence = "the data set has token id 512, outside the model's vocabulary of 512: it was probably annotated"
    loaded = datasets.Dataset.from_list(rows)
    monkeypatch.setattr(openrlhf.utils, "get_strategy", lambda args: Strategy())
    with stock.substituted(Options()):
        script_class = openrlhf.datasets.SFTDataset  # imported before the flags are known
        strategy = openrlhf.utils.get_strategy(args)
        with pytest.raises(InputError, match=sentence):
            script_class(loaded, None, 64, strategy)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which `prepare` replaces
    with pytest.raises(InputError, match=sentence):
        stock.prepare(args, Options())[0](loaded, None, 64, strategy)


def test_a_model_that_does_not_load(folder: Path, tmp_path: Path) -> None:
    missing = str(folder / "no-model")
    assert f"--model.model_name_or_path: cannot load {missing!r}: " in refusal(
        folder, model__model_name_or_path=missing
    )
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / "model" / name).read_bytes())
    assert "it holds no weights (.safetensors, " in refusal(folder, model__model_name_or_path=str(tmp_path))


def test_nothing_to_train_on(folder: Path, tmp_path: Path) -> None:
    assert "has no rows" in refusal(folder, data__dataset=str(write_rows(tmp_path / "empty", [])))
    rows = [{**row, records.MASK: [0.0] * len(row[records.MASK])} for row in make_rows(9)]
    message = refusal(folder, data__dataset=str(write_rows(tmp_path / "zero", rows)))
    assert "none of its 9 rows has a weight above 0 in column 'critical_mask' within --data.max_len 64" in message


def test_fewer_rows_than_one_optimizer_step_takes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(folder, train__batch_size=32)
    assert message == (
        "24 rows have a token to train, and one optimizer step takes more (--train.batch_size 32, "
        "--train.micro_batch_size 2, 1 epochs): lower --train.batch_size to 24, or add rows"
    )
    assert refusal(folder, data__max_samples=4).startswith("4 rows have a token to train")
    assert refusal(folder, data__max_samples=1).endswith(
        "lower --train.batch_size to 1 and --train.micro_batch_size to 1, or add rows"
    )
    preflight.check(arguments(folder, train__batch_size=32, train__max_epochs=2), Options())  # a step across epochs
    monkeypatch.setenv("WORLD_SIZE", "25")
    assert refusal(folder, train__batch_size=50).endswith("add rows, each of the 25 processes needs one")
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert refusal(folder, train__batch_size=30).startswith("24 rows have")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "folder"])
def test_fewer_local_rows_than_a_batch_with_the_stock_flags(tmp_path: Path, folder: Path, name: str) -> None:
    """Without a flag of ours, too: the stock script loads the model first, and then raises."""
    rows = [{"question": "one", "response": "two"}] * 5
    path = tmp_path / name
    if name == "rows.jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        file = path if name == "rows.parquet" else path / "part-0.parquet"
        file.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(
        InputError, match=r"^the data set has 5 rows, and .*\(--train.batch_size 8, .* to 4, or add rows$"
    ):
        preflight.check_rows(arguments(folder, data__dataset=str(path)))
    preflight.check_rows(arguments(folder, data__dataset=f"{path},{path}"))
    for unknown in ("some/hub_name", f"{path},openai/gsm8k@main", str(tmp_path / "no.json"), None):
        preflight.check_rows(arguments(folder, data__dataset=unknown))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ds__ring_attn_size", 2, "--ds.ring_attn_size 2 cannot be combined with --critical_mask yet"),
        ("ds__tensor_parallel_size", 4, "--ds.tensor_parallel_size 4 cannot be combined with --critical_mask yet"),
        ("ds__deepcompile", True, "--ds.deepcompile cannot be combined with --critical_mask yet"),
        ("model__pretrain_mode_enable", True, "--model.pretrain_mode_enable cannot be combined with --critical_mask"),
    ],
)
def test_modes_that_are_refused(folder: Path, name: str, value: Any, message: str) -> None:
    assert message in refusal(folder, **{name: value})


@pytest.mark.parametrize("version", ["0.11.1", "0.12.0", "0.10", "1.0"])
def test_an_openrlhf_outside_the_supported_range(version: str) -> None:
    with pytest.raises(InputError, match=f"supports openrlhf>=0.11.2,<0.12, and {version} is installed"):
        preflight.check_openrlhf(version)


@pytest.mark.parametrize("version", ["0.11.2", "0.11.9", "0.11.2+local", None])
def test_a_supported_openrlhf(version: str | None) -> None:
    preflight.check_openrlhf(version)
