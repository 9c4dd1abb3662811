"""The data set: ids unchanged, weights with their tokens after a cut, flags, what is skipped, what is refused."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from openrlhf.datasets import SFTDataset
from train_helpers import Strategy, make_rows, make_tokenizer

from openrlhf_cft import display
from openrlhf_cft.data import records
from openrlhf_cft.errors import InputError
from openrlhf_cft.train import mask_bits, show
from openrlhf_cft.train.dataset import CriticalTokenDataset, encode_row

PROMPT, RESPONSE, MASK = records.PROMPT_IDS, records.RESPONSE_IDS, records.MASK
TOKENIZER = SimpleNamespace(pad_token_id=0, eos_token_id=1)


def make(rows: list[dict[str, Any]], max_length: int = 100, **kwargs: Any) -> CriticalTokenDataset:
    return CriticalTokenDataset(datasets.Dataset.from_list(rows), TOKENIZER, max_length, Strategy(), **kwargs)


def row(prompt: list[int], response: list[int], weights: Any, row_id: str = "r0") -> dict[str, Any]:
    return {records.ID: row_id, PROMPT: prompt, RESPONSE: response, MASK: weights}


@pytest.mark.parametrize("max_length", [100, 14, 9, 4])
def test_ids_and_weights_stay_together_whatever_the_cut(max_length: int) -> None:
    rows = make_rows(60, floats=True)
    dataset = make(rows, max_length)
    usable = [r for r in rows if any(r[MASK][: max(0, max_length - len(r[PROMPT]))])]
    assert len(dataset) == len(usable)
    assert dataset.skipped == len(rows) - len(usable)
    assert dataset.trained_tokens == sum((dataset[i][2] != 0).sum().item() for i in range(len(dataset)))
    for index, r in enumerate(usable):
        ids, bits, mask = dataset[index]
        assert ids[0].tolist() == (r[PROMPT] + r[RESPONSE])[:max_length]
        weights = [0.0] * len(r[PROMPT]) + r[MASK]
        assert mask[0, :-1].tolist() == np.float32(weights[1 : ids.shape[1]]).tolist()
        assert mask[0, -1] == 0
        assert ids.shape == bits.shape == mask.shape
        assert (ids.dtype, bits.dtype, mask.dtype) == (torch.int64, torch.int64, torch.float32)


def test_flags_are_shifted_as_the_loss_mask_is() -> None:
    ids, bits, mask = encode_row([5, 6, 7], [8, 9, 10], [0.0, 0.5, 0.0], max_length=100)
    assert ids.tolist() == [[5, 6, 7, 8, 9, 10]]
    assert mask.tolist() == [[0, 0, 0, 0.5, 0, 0]]
    assert mask_bits.real(bits).tolist() == [[1] * 6]
    assert mask_bits.loss(bits).tolist() == [[False, False, False, True, False, False]]
    assert mask_bits.response(bits).tolist() == [[False, False, True, True, True, False]]
    assert mask_bits.has_flags(bits)
    assert not mask_bits.has_flags(mask_bits.real(bits))


def test_a_cut_inside_the_prompt_leaves_no_flags() -> None:
    _, bits, mask = encode_row([5, 6, 7, 8], [9], [1.0], max_length=2)
    assert bits.tolist() == [[1, 1]]
    assert mask.tolist() == [[0, 0]]


def test_the_stock_collate_pads_ids_flags_and_weights() -> None:
    dataset = make([row([5], [6, 7], [1, 1]), row([5, 6, 7], [8, 1], [0, 1], "r1")])
    ids, bits, mask = dataset.collate_fn([dataset[0], dataset[1]])
    assert ids.tolist() == [[5, 6, 7, 0, 0], [5, 6, 7, 8, 1]]
    assert mask_bits.real(bits).tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert mask.tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 0]]


def test_rows_without_a_trained_token_are_skipped_and_the_number_is_logged() -> None:
    empty = [row([5], [6, 7], [0, 0], "none"), row([5], [], [], "no response"), row([5], [6, 7], [0, 1e-60], "tiny")]
    strategy = Strategy()
    dataset = CriticalTokenDataset(datasets.Dataset.from_list([*make_rows(3), *empty]), TOKENIZER, 100, strategy)
    assert (len(dataset), dataset.skipped) == (3, 3)
    assert "3 rows skipped, none trained in them" in strategy.printed[0]


def test_counts_do_not_depend_on_how_the_rows_are_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(50, critical=0.05)
    random.Random(0).shuffle(rows)
    for r in rows[::4]:
        r[MASK] = [0.0] * len(r[MASK])
    whole = make(rows, 12)
    monkeypatch.setattr("openrlhf_cft.train.row_checks.ROWS_AT_ONCE", 3)
    parts = make(rows, 12)
    assert (whole.skipped, whole.trained_tokens, whole.response_tokens) == (
        parts.skipped,
        parts.trained_tokens,
        parts.response_tokens,
    )


@pytest.mark.parametrize("weights", [[True, False], [1, 0], np.float16([0.5, 0]).tolist()])
def test_any_kind_of_number_is_a_weight(weights: list[Any]) -> None:
    assert make([row([5], [6, 7], weights)])[0][2].tolist() == [[float(weights[0]), 0, 0]]


def test_another_column() -> None:
    rows = [{**r, "other": [2.0] * len(r[RESPONSE])} for r in make_rows(3)]
    assert make(rows, mask_column="other")[0][2].max() == 2.0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row([5], [6, 7], [1.0], "bad"), "row 'bad': column 'critical_mask' has 1 weights for 2 response tokens"),
        (row([5], [6, 7], None, "bad"), "row 'bad' has no value in column 'critical_mask'"),
        (row([5], [6], [-1.0], "bad"), "row 'bad': weight -1.0 at response position 0 of column 'critical_mask'"),
        (row([5], [6], [float("nan")], "bad"), "row 'bad': weight nan at response position 0"),
        (row([5], [6], [1e39], "bad"), "row 'bad': weight inf at response position 0"),
        (row([5], [6], [None], "bad"), "row 'bad': weight None at response position 0"),
        (row([], [6], [1.0], "bad"), "row 'bad' has no prompt_token_ids"),
        (row([5], None, [1.0], "bad"), "row 'bad' has no response_token_ids"),
        (row([5], [-6], [1.0], "bad"), "row 'bad' has a token id that is missing or negative"),
    ],
)
def test_a_bad_row_is_named(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        make([*make_rows(3), bad, *make_rows(2)])


def test_a_row_without_an_id_is_named_by_its_place() -> None:
    rows = [{name: value for name, value in r.items() if name != records.ID} for r in make_rows(4)]
    rows[2][MASK] = [1.0] * 99
    with pytest.raises(InputError, match="row 2: column 'critical_mask' has 99 weights"):
        make(rows)


def test_a_missing_column_names_those_that_there_are() -> None:
    with pytest.raises(
        InputError, match="no column 'mask'; its columns are critical_mask, id, prompt_token_ids, resp"
    ):
        make(make_rows(2), mask_column="mask")


def test_a_column_of_the_wrong_type() -> None:
    with pytest.raises(InputError, match="column 'critical_mask' holds string, not a list of numbers"):
        make([row([5], [6], "1")])


def without(r: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: None if name in names else value for name, value in r.items()}


def blend() -> list[dict[str, Any]]:
    """Three annotated rows; one with stored ids, none of them weighted; three of text alone."""
    texts = [{"question": f"how many {i}", "response": f"it is {i}"} for i in range(3)]
    empty = dict.fromkeys((records.ID, PROMPT, RESPONSE, MASK))
    stored = without(row([5, 6], [7, 8, 9], None, "stored"), MASK)
    filled = [{**r, "question": None, "response": None} for r in [*make_rows(3), stored]]
    return [*filled, *({**empty, **text} for text in texts)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def text_strategy(**flags: Any) -> Strategy:
    strategy = Strategy()
    strategy.args.data = SimpleNamespace(**{"input_key": "question", "output_key": "response", **flags})
    return strategy


def test_rows_without_weights_are_an_error_by_default() -> None:
    with pytest.raises(InputError, match=r"row 'stored' has no value in column 'critical_mask' \(--cft.missing train"):
        make(blend())


def test_rows_without_weights_are_dropped() -> None:
    strategy = Strategy()
    dataset = CriticalTokenDataset(datasets.Dataset.from_list(blend()), TOKENIZER, 100, strategy, missing="drop")
    assert [dataset[i][0][0].tolist() for i in range(len(dataset))] == [r[PROMPT] + r[RESPONSE] for r in make_rows(3)]
    assert strategy.printed[1] == "rows without 'critical_mask': 0 trained on all response tokens, 4 dropped" + (
        ", 0 too long (--cft.missing drop)"
    )


def test_rows_without_weights_are_trained_on_all_response_tokens(tokenizer: Any) -> None:
    rows, strategy = blend(), text_strategy()
    template = "Q: {} A:"
    options: dict[str, Any] = {"input_template": template, "num_processors": 1}
    dataset = CriticalTokenDataset(
        datasets.Dataset.from_list(rows), tokenizer, 100, strategy, missing="train", **options
    )
    assert (len(dataset), dataset.annotated, dataset.unweighted, dataset.skipped) == (7, 3, 4, 0)
    annotated = CriticalTokenDataset(datasets.Dataset.from_list(make_rows(3)), tokenizer, 100, Strategy())
    for index in range(3):
        assert all(torch.equal(one, other) for one, other in zip(dataset[index], annotated[index], strict=True))
    ids, bits, mask = dataset[3]
    assert (ids.tolist(), mask.tolist()) == ([[5, 6, 7, 8, 9]], [[0, 1, 1, 1, 0]])
    assert bits.tolist() == [[1, 7, 7, 7, 1]]
    stock = SFTDataset(datasets.Dataset.from_list(rows[4:]), tokenizer, 100, strategy, template, False, 1)
    for index in range(3):
        (ids, bits, mask), (stock_ids, stock_attention, stock_mask) = dataset[4 + index], stock[index]
        assert torch.equal(ids, stock_ids) and torch.equal(mask, stock_mask)
        assert torch.equal(mask_bits.real(bits), stock_attention)
        assert torch.equal(mask_bits.loss(bits), stock_mask != 0) and torch.equal(
            mask_bits.response(bits), stock_mask != 0
        )
    assert "4 trained on all response tokens, 0 dropped, 0 too long (--cft.missing train)" in strategy.printed[-1]


def test_turns_of_text_beside_annotated_rows(tokenizer: Any) -> None:
    turns = [
        {"role": "user", "content": "one and two"},
        {"role": "assistant", "content": "three"},
        {"role": "user", "content": "and four"},
        {"role": "assistant", "content": "seven"},
    ]
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    rows = [{**make_rows(1)[0], "messages": None}, {**dict.fromkeys(make_rows(1)[0]), "messages": turns}]
    strategy = text_strategy(input_key="messages", output_key=None, apply_chat_template=True)
    dataset = CriticalTokenDataset(
        datasets.Dataset.from_list(rows), tokenizer, 100, strategy, None, False, 1, multiturn=True, missing="train"
    )
    assert len(dataset) == 2
    ids, _, mask = dataset[1]
    trained = "".join(tokenizer.decode(ids[0, 1:][mask[0, :-1] != 0]))
    assert "three" in trained and "seven" in trained and "four" not in trained


def test_text_that_is_not_there_is_one_sentence(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"need their text, and there is no column 'input' \(--data.input_key\)"):
        CriticalTokenDataset(
            datasets.Dataset.from_list(blend()), tokenizer, 100, text_strategy(input_key="input"), missing="train"
        )


def test_text_that_the_stock_data_set_would_leave_out_in_silence(tokenizer: Any) -> None:
    def build(rows: list[dict[str, Any]], max_length: int = 100, **flags: Any) -> CriticalTokenDataset:
        options: dict[str, Any] = {"num_processors": 1, "missing": "train"}
        data = datasets.Dataset.from_list(rows)
        return CriticalTokenDataset(data, tokenizer, max_length, text_strategy(**flags), **options)

    with pytest.raises(InputError, match=r"on their text: name its column with --data.output_key"):
        build(blend(), output_key=None)
    with pytest.raises(InputError, match=r"row number 5 has no weights and no text in column 'question'"):
        build([*blend()[:5], {**blend()[5], "question": None}])
    long = {**blend()[5], "question": "one " * 200}
    dataset = build([*blend()[:5], long])
    assert (len(dataset), dataset.skipped) == (5, 0)
    assert "1 too long" in dataset.strategy.printed[-1]


def test_a_misspelt_column_is_not_plain_sft(tokenizer: Any) -> None:
    rows = [{**r, "question": "one", "response": "two"} for r in make_rows(3)]
    dataset = CriticalTokenDataset(
        datasets.Dataset.from_list(rows), tokenizer, 100, text_strategy(), mask_column="maks", missing="train"
    )
    with pytest.raises(InputError, match="no row has weights in column 'maks'; the columns are critical_mask, id"):
        dataset.require_weights()
    with pytest.raises(InputError, match="has no token to train"):
        make(make_rows(3), mask_column="maks", missing="drop")


def test_pretraining_is_refused() -> None:
    with pytest.raises(InputError, match="pretrain_mode_enable cannot be combined with --critical_mask"):
        make(make_rows(2), pretrain_mode=True)


def test_a_token_id_beyond_the_vocabulary_is_refused() -> None:
    """The model's vocabulary, which may be padded: ids without a token in the tokenizer are fine."""
    rows = [row([5], [511, 7], [1, 1])]
    assert len(make(rows)) == len(make(rows, vocab_size=512)) == 1
    with pytest.raises(InputError, match="the data set has token id 511, outside the model's vocabulary of 511: it"):
        make(rows, vocab_size=511)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(InputError, match="none of its 1 rows has a weight above 0 in column 'critical_mask' within"):
        make([row([5, 6, 7], [8], [1.0])], max_length=3)
    with pytest.raises(InputError, match="has no rows"):
        CriticalTokenDataset(datasets.Dataset.from_list(make_rows(1)).select([]), TOKENIZER, 9, Strategy())


def test_the_example_marks_exactly_the_trained_tokens() -> None:
    tokenizer = SimpleNamespace(decode=lambda ids: "".join(chr(ord("a") + token) for token in ids))
    ids, bits, _ = encode_row([0, 1, 2], [3, 4, 5, 6], [0, 1, 1, 0], max_length=100)
    assert show.mark_trained(tokenizer, ids[0], bits[0], ("[", "]")) == "abcd[ef]g"
    ids, bits, _ = encode_row([0] * 100, [3], [1], max_length=200)
    assert show.mark_trained(tokenizer, ids[0], bits[0], ("[", "]")) == "…" + "a" * show.PROMPT_TOKENS + "[d]"


def test_text_that_the_log_cannot_encode_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", SimpleNamespace(encoding="ascii", isatty=lambda: False))
    assert display.printable("⟦5⟧") == "?5?"
    assert display.marks_for_stdout() == display.BRACKETS
