"""Scores in padded batches against a row alone, in float64, with logits and attention of all positions."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import tries
from train_helpers import TINY, VOCAB, make_model, make_rows

from openrlhf_cft.data import records
from openrlhf_cft.engine import token_scores as module
from openrlhf_cft.engine.token_scores import batches, load_model, token_logprobs, token_scores

pytestmark = pytest.mark.usefixtures("one_thread")
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "llama": {},
    "mistral": {"sliding_window": 4},
    "gemma2": {"sliding_window": 4, "query_pre_attn_scalar": 32},  # caps its logits and its attention
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2},
    "gpt_neox": {},
    "cohere": {"logit_scale": 0.5},
    "olmo2": {},
}


def architecture(name: str, dtype: torch.dtype) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **TINY, initializer_range=0.2, **ARCHITECTURES[name])
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype).eval()


@torch.inference_mode()
def literal(model: Any, row: dict[str, Any], measure: str) -> list[float]:
    """One row alone, by the definitions, a token at a time."""
    prompt, response = row[records.PROMPT_IDS], row[records.RESPONSE_IDS]
    ids = [*prompt, *response]
    output = model(torch.tensor([ids]), output_attentions=True)
    found = []
    for t in range(len(response)):
        p = len(prompt) + t
        logprobs = torch.log_softmax(output.logits[0, p - 1].double(), -1)
        if measure == "nll":
            found.append(-logprobs[ids[p]].item())
        elif measure == "entropy":
            found.append(-(logprobs.exp() * logprobs).sum().item())
        else:
            layers = [layer[0].double() for layer in output.attentions]
            heads = sum(len(layer) for layer in layers)
            found.append(sum(layer[:, q, p].sum().item() for layer in layers for q in range(p + 1, len(ids))) / heads)
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batches_score_as_a_row_alone(name: str) -> None:
    rows = [*make_rows(9), {records.PROMPT_IDS: [5, 6], records.RESPONSE_IDS: []}]
    exact, single = architecture(name, torch.float64), architecture(name, torch.float32)
    for measure in module.MEASURES:
        wanted = [literal(exact, row, measure) for row in rows]
        # Norms and the softmax of attention are float32 in transformers, whatever the model is.
        for model, batch_tokens, tolerance in ((exact, 60, 1e-5), (single, 1, 1e-4), (single, 10_000, 1e-4)):
            found = list(token_scores(model, rows, measure, batch_tokens))
            for row, got, expected in zip(rows, found, wanted, strict=True):
                assert len(got) == len(row[records.RESPONSE_IDS])
                assert got == pytest.approx(expected, rel=0, abs=tolerance), measure


def test_windows_and_orders_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = architecture("llama", torch.float64), make_rows(9)
    whole = list(token_scores(model, rows, "nll"))
    monkeypatch.setattr(module, "WINDOW", 2)
    read = []
    stream = token_scores(model, (read.append(row) or row for row in rows), "nll")
    assert next(stream) == pytest.approx(whole[0]) and len(read) == 2, "no more rows are read than one window"
    assert [*stream] == [pytest.approx(row) for row in whole[1:]]
    assert next(token_logprobs(model, rows)) == [-value for value in whole[0]]


def test_logits_are_computed_at_response_positions_only() -> None:
    model, rows = architecture("llama", torch.float32), make_rows(5)
    shapes = []
    hook = model.lm_head.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape)))
    list(token_scores(model, rows, "entropy", 10_000))
    hook.remove()
    assert shapes == [(1, sum(len(row[records.RESPONSE_IDS]) for row in rows), VOCAB)]
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, VOCAB), "and the model is left as it was"


@tries(100)
@given(st.lists(st.integers(1, 2000), max_size=30), st.integers(1, 3000), st.booleans())
def test_every_row_is_in_one_batch_within_its_bound(lengths: list[int], batch_tokens: int, square: bool) -> None:
    found = batches(lengths, batch_tokens, square)
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= batch_tokens
        assert len(batch) == 1 or not square or len(batch) * longest**2 <= batch_tokens * max(module.SQUARE, longest)
    shown = [lengths[index] for batch in found for index in batch]
    assert shown == sorted(lengths, reverse=True)


def test_a_row_that_the_model_cannot_take_is_refused() -> None:
    model, (row,) = architecture("llama", torch.float32), make_rows(1)
    for change, message in (
        ({records.PROMPT_IDS: []}, "row 'row-0' has no prompt token"),
        ({records.RESPONSE_IDS: [VOCAB]}, f"row 'row-0' has token id {VOCAB}, and the model has {VOCAB} tokens"),
        ({records.PROMPT_IDS: [-1]}, "row 'row-0' has token id -1, and"),
        ({records.RESPONSE_IDS: [1] * 5000}, "tokens; the model takes 2048"),
    ):
        with pytest.raises(ValueError, match=message):
            list(token_scores(model, [{**row, **change}], "nll"))
    with pytest.raises(ValueError, match="--batch_tokens: 0 must be at least 1"):
        list(token_scores(model, [row], "nll", 0))
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"row 'row-0': nll is not a number in torch\.float32"):
        list(token_scores(model, [row], "nll"))


def test_a_model_is_loaded_once_while_it_is_held(tmp_path: Path) -> None:
    path = str(make_model(tmp_path))
    model = load_model(path)
    assert load_model(path) is model and load_model(path, "float64") is not model
    other = weakref.ref(model)
    del model
    gc.collect()
    assert other() is None


def test_attention_needs_the_eager_implementation(tmp_path: Path) -> None:
    path, rows = str(make_model(tmp_path)), make_rows(2)
    with pytest.raises(ValueError, match="shows no attention weights"):
        list(token_scores(load_model(path), rows, "attention"))
    received = list(token_scores(load_model(path, attention=True), rows, "attention"))
    assert all(row[-1] == 0 and row[0] > 0 for row in received), "nothing is behind the last token"
    with pytest.raises(ValueError, match=r"--reference\.model_name_or_path: cannot load .*nowhere"):
        load_model(str(tmp_path / "nowhere"), flag="--reference.model_name_or_path")
