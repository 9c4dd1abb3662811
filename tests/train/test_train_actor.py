"""The actor with logits at loss positions only, against the stock actor with logits everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from openrlhf.models import Actor
from train_helpers import TINY, VOCAB, make_model, make_rows

from openrlhf_cft.data import records
from openrlhf_cft.engine.logits import later_tokens_change_nothing
from openrlhf_cft.train.actor import CriticalTokenActor, chosen_log_probs, scatter
from openrlhf_cft.train.dataset import encode_row
from openrlhf_cft.train.loss import CriticalTokenLoss

OPTIONS: dict[str, dict[str, Any]] = {
    "padded": {},
    "packed": {"packing_samples": True},
    "LoRA": {"lora_rank": 4, "target_modules": "all-linear"},
    "LoRA of the output embeddings": {"lora_rank": 4, "target_modules": ["q_proj", "lm_head"]},
    "temperature": {"temperature": 0.7},
}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def pair(model_path: str | Path, **options: Any) -> tuple[Actor, CriticalTokenActor]:
    """A stock actor and ours with the same parameters."""
    made = []
    for kind in (Actor, CriticalTokenActor):
        torch.manual_seed(0)
        made.append(kind(str(model_path), attn_implementation="sdpa", param_dtype="fp32", **options))
    return made[0], made[1]


def batch(rows: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Collated ids, flags and loss mask, (B, L) each."""
    encoded = [
        encode_row(row[records.PROMPT_IDS], row[records.RESPONSE_IDS], row[records.MASK], max_length=64)
        for row in rows
    ]
    length = max(ids.shape[1] for ids, _, _ in encoded)
    columns = zip(*encoded, strict=True)
    return tuple(  # type: ignore[return-value]
        torch.cat([torch.nn.functional.pad(part, (0, length - part.shape[1])) for part in column])
        for column in columns
    )


def gradients(actor: Actor) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in actor.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", OPTIONS)
def test_same_log_probabilities_and_gradients_as_everywhere(model_path: Path, name: str) -> None:
    stock, ours = pair(model_path, **OPTIONS[name])
    ids, bits, mask = batch(make_rows(4, floats=True))
    expected = stock(ids, attention_mask=bits & 1, return_logprobs=True)
    found, output = ours(ids, attention_mask=bits, return_logprobs=True, return_output=True)
    trained = mask[:, :-1] != 0
    assert output["logits"].shape == (1, 0, VOCAB)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[trained], expected[trained], rtol=0, atol=5e-6)
    assert (found[~trained] == 0).all()
    for log_probs in (expected, found):
        CriticalTokenLoss()(log_probs, mask[:, :-1]).backward()
    wanted, got = gradients(stock), gradients(ours)
    assert wanted.keys() == got.keys() and wanted
    for parameter in wanted:
        torch.testing.assert_close(got[parameter], wanted[parameter], rtol=1e-4, atol=1e-6)


def test_a_model_whose_logits_are_needed_trains_all_the_same(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, ours = pair(model_path)
    monkeypatch.setattr(ours, "_log_probs", None)
    ids, bits, mask = batch(make_rows(4, floats=True))
    expected = stock(ids, attention_mask=bits & 1, return_logprobs=True)
    found, output = ours(ids, attention_mask=bits, return_logprobs=True, return_output=True)
    assert output["logits"].shape == (1, (mask[:, :-1] != 0).sum(), VOCAB)
    assert output["logits"].dtype == torch.float32
    for values in (expected, found):
        CriticalTokenLoss()(values, mask[:, :-1]).backward()
    for name, gradient in gradients(stock).items():
        torch.testing.assert_close(gradients(ours)[name], gradient, rtol=1e-4, atol=1e-6)


SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 4},
    "qwen3": {"tie_word_embeddings": True},
    "gemma2": {"sliding_window": 4, "query_pre_attn_scalar": 32},  # caps its logits
    "gemma3_text": {"sliding_window": 4, "query_pre_attn_scalar": 32},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "gpt_neox": {"hidden_dropout": 0.0, "attention_dropout": 0.0},
    "phi": {"num_key_value_heads": 2},
    "phi3": {},
    "cohere": {"logit_scale": 0.5},
    "granite": {"logits_scaling": 3.0},
    "olmo2": {},
}


@pytest.mark.parametrize("packing_samples", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_causal_model(architecture: str, packing_samples: bool, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **{**TINY, **SPECIAL, **ARCHITECTURES[architecture]})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    stock, ours = pair(tmp_path, packing_samples=packing_samples)
    ids, bits, mask = batch(make_rows(4, critical=0.1))
    expected = stock(ids, attention_mask=bits & 1, return_logprobs=True)
    found, output = ours(ids, attention_mask=bits, return_logprobs=True, return_output=True)
    assert output["logits"].numel() == 0  # no architecture of these needs its logits
    trained = mask[:, :-1] != 0
    torch.testing.assert_close(found[trained], expected[trained], rtol=0, atol=1e-5)
    for log_probs in (expected, found):
        CriticalTokenLoss()(log_probs, mask[:, :-1]).backward()
    wanted, got = gradients(stock), gradients(ours)
    assert wanted.keys() == got.keys() and wanted
    for parameter in wanted:
        torch.testing.assert_close(got[parameter], wanted[parameter], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_rows_do_not_see_each_other(architecture: str, tmp_path: Path) -> None:
    """Also where attention has a window, whose mask and positions have to begin anew with each row."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **{**TINY, **SPECIAL, **ARCHITECTURES[architecture]})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    ids, bits, mask = batch(make_rows(4, floats=True))
    packed, padded = (
        CriticalTokenActor(str(tmp_path), attn_implementation="sdpa", param_dtype="fp32", packing_samples=packing)(
            ids, attention_mask=bits, return_logprobs=True
        )
        for packing in (True, False)
    )
    assert (mask[:, :-1] != 0).sum() > 10
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-5)


@pytest.mark.parametrize("packing_samples", [False, True])
def test_tokens_after_the_last_loss_of_a_row_are_not_computed(model_path: Path, packing_samples: bool) -> None:
    _, ours = pair(model_path, packing_samples=packing_samples)
    ids, bits, _ = batch(make_rows(5, critical=0.1))
    computed: list[int] = []
    ours.model.model.layers[0].register_forward_pre_hook(
        lambda module, args: computed.append(args[0].shape[:2].numel())
    )
    ours(ids, attention_mask=bits, return_logprobs=True)
    loss = (bits & 2) != 0
    last = [int(row.nonzero().max()) + 1 for row in loss]
    assert computed == [sum(last) if packing_samples else len(last) * max(last)]
    assert computed[0] < (int((bits & 1).sum()) if packing_samples else bits.numel())


@pytest.mark.parametrize(
    ("changes", "trims"),
    [
        ({}, True),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}}, True),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, False),
        ({"output_router_logits": True}, False),
    ],
)
def test_where_later_tokens_matter_all_are_computed(changes: dict[str, Any], trims: bool) -> None:
    from transformers import Qwen2Config

    config = Qwen2Config(max_position_embeddings=64)
    for name, value in changes.items():
        setattr(config, name, value)
    assert later_tokens_change_nothing(config) is trims


@pytest.mark.parametrize("logits", ["none", "selected", "dense"])
@pytest.mark.parametrize("packing_samples", [False, True])
def test_evaluation_sees_every_response_token_and_its_entropy(
    model_path: Path, packing_samples: bool, logits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, ours = pair(model_path, packing_samples=packing_samples)
    ours.dense_logits = logits == "dense"
    if logits == "selected":
        monkeypatch.setattr(ours, "_log_probs", None)
    ids, bits, _ = batch(make_rows(4))
    response = ((bits & 4) != 0)[:, :-1]
    with torch.no_grad():
        expected, output = stock.eval()(
            ids, attention_mask=bits & 1, return_logprobs=True, return_output=True, return_entropy=True
        )
        found = ours.eval()(ids, attention_mask=bits, return_logprobs=True)
    torch.testing.assert_close(found[response], expected[response], rtol=0, atol=5e-6)
    assert ours.entropy is not None
    torch.testing.assert_close(ours.entropy[response], output.entropy[response], rtol=0, atol=1e-5)
    assert (ours.entropy[~response] == 0).all()


def test_dense_logits_are_the_stock_ones(model_path: Path) -> None:
    stock, ours = pair(model_path)
    ours.dense_logits = True
    ids, bits, _ = batch(make_rows(3))
    expected, wanted = stock(ids, attention_mask=bits & 1, return_logprobs=True, return_output=True)
    found, output = ours(ids, attention_mask=bits, return_logprobs=True, return_output=True)
    assert torch.equal(found, expected) and torch.equal(output["logits"], wanted["logits"])


def test_a_plain_mask_takes_the_stock_path(model_path: Path) -> None:
    stock, ours = pair(model_path)
    ids, bits, _ = batch(make_rows(3))
    for kwargs in ({"return_logprobs": True}, {"return_output": True}):
        expected, found = (actor(ids, attention_mask=bits & 1, **kwargs) for actor in (stock, ours))
        expected, found = (out if torch.is_tensor(out) else out["logits"] for out in (expected, found))
        assert torch.equal(expected, found)


def test_flags_never_reach_the_model_on_any_path(model_path: Path) -> None:
    stock, ours = pair(model_path)
    ids, bits, _ = batch(make_rows(3))
    action_mask = torch.ones(3, 2)
    expected = stock(ids, action_mask, attention_mask=bits & 1)
    assert torch.equal(ours(ids, action_mask, attention_mask=bits), expected)
    assert torch.equal(
        ours(ids, attention_mask=bits, return_output=True)["logits"],
        stock(ids, attention_mask=bits & 1, return_output=True)["logits"],
    )


@pytest.mark.parametrize("packing_samples", [False, True])
def test_nothing_selected_gives_zero_gradients_for_every_parameter(model_path: Path, packing_samples: bool) -> None:
    _, ours = pair(model_path, packing_samples=packing_samples)
    rows = [{**row, records.MASK: [0.0] * len(row[records.MASK])} for row in make_rows(3)]
    ids, bits, mask = batch(rows)
    log_probs = ours(ids, attention_mask=bits, return_logprobs=True)
    loss = CriticalTokenLoss()(log_probs, mask[:, :-1], dp_size=2, batch_num_tokens=torch.tensor(0.0))
    assert loss.item() == 0
    loss.backward()
    assert len(gradients(ours)) == len(list(ours.model.parameters()))
    assert all((gradient == 0).all() for gradient in gradients(ours).values())


def test_gradient_checkpointing(model_path: Path) -> None:
    _, ours = pair(model_path)
    ids, bits, mask = batch(make_rows(3))
    found = []
    for enabled in (False, True):
        if enabled:
            ours.gradient_checkpointing_enable()
            ours.train()
        ours.zero_grad()
        CriticalTokenLoss()(ours(ids, attention_mask=bits, return_logprobs=True), mask[:, :-1]).backward()
        found.append({name: gradient.clone() for name, gradient in gradients(ours).items()})
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name])


@pytest.mark.parametrize("packing_samples", [False, True])
def test_the_balancing_loss_of_a_mixture_of_experts_survives(tmp_path: Path, packing_samples: bool) -> None:
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_experts": 4, "num_experts_per_tok": 2}
    config = Qwen2MoeConfig(vocab_size=VOCAB, shared_expert_intermediate_size=32, **sizes, **heads)
    Qwen2MoeForCausalLM(config).save_pretrained(tmp_path)
    stock, ours = pair(tmp_path, packing_samples=packing_samples)
    ids, bits, _ = batch(make_rows(3))
    _, expected = stock(ids, attention_mask=bits & 1, return_logprobs=True, return_output=True)
    _, found = ours(ids, attention_mask=bits, return_logprobs=True, return_output=True)
    assert found.aux_loss > 0
    torch.testing.assert_close(found.aux_loss, expected.aux_loss)


def test_log_probabilities_go_back_to_their_places() -> None:
    torch.manual_seed(0)
    sequences, logits = torch.randint(0, 7, (2, 4)), torch.randn(2, 7)
    wanted = torch.tensor([[False, True, False, False], [False, False, True, False]])
    labels = torch.stack([sequences[0, 2], sequences[1, 3]])
    log_probs = logits.log_softmax(-1)
    expected = torch.zeros(2, 3)
    expected[0, 1], expected[1, 2] = log_probs[0, labels[0]], log_probs[1, labels[1]]
    torch.testing.assert_close(scatter(chosen_log_probs(logits, labels), wanted), expected)
