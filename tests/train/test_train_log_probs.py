"""Log-probabilities without logits, against logits, `log_softmax` and autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from openrlhf_cft.engine.logit_transform import LogitTransform, probe_transform
from openrlhf_cft.train import log_probs
from openrlhf_cft.train.log_probs import Projection, attach_log_probs

POSITIONS, HIDDEN, WORDS = 7, 5, 23
TRANSFORMS = [LogitTransform(), LogitTransform(scale=0.3), LogitTransform(cap=2.0), LogitTransform(scale=2.0, cap=1.5)]


def projection(transform: LogitTransform, *, bias: bool, pairs: int, dtype: torch.dtype = torch.float64) -> Projection:
    torch.manual_seed(0)
    inputs = [torch.randn(POSITIONS, HIDDEN, dtype=dtype, requires_grad=True) for _ in range(pairs)]
    weights = [torch.randn(WORDS, HIDDEN, dtype=dtype, requires_grad=True) for _ in range(pairs)]
    return Projection(
        tuple(inputs),
        tuple(weights),
        torch.randn(WORDS, dtype=dtype, requires_grad=True) if bias else None,
        transform,
    )


def tensors(part: Projection) -> list[torch.Tensor]:
    return [*part.inputs, *part.weights, *([] if part.bias is None else [part.bias])]


def plainly(part: Projection, labels: torch.Tensor) -> torch.Tensor:
    logits = sum(x @ w.t() for x, w in zip(part.inputs, part.weights, strict=True))
    logits = logits if part.bias is None else logits + part.bias
    cap = part.transform.cap
    logits = part.transform.scale * (logits if cap is None else cap * torch.tanh(logits / cap))
    return logits.log_softmax(-1).gather(1, labels[:, None]).squeeze(1)


@pytest.mark.parametrize("kept", [0, 2 * POSITIONS * 4, 10**6])
@pytest.mark.parametrize("words", [1, 4, 23, 100])
@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_values_and_gradients_are_those_of_log_softmax(
    transform: LogitTransform, bias: bool, pairs: int, words: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks of any size, whose last is shorter, with none, some or all blocks kept for the backward pass."""
    monkeypatch.setattr(log_probs, "FEWEST", words)
    monkeypatch.setattr(log_probs, "BLOCK", 1)
    monkeypatch.setattr(log_probs, "KEPT", kept)
    part = projection(transform, bias=bias, pairs=pairs)
    labels = torch.tensor([0, 3, 4, 22, 21, 4, 7])  # also the first and last words of blocks
    upstream = torch.randn(POSITIONS, dtype=torch.float64)  # weights differ, one is negative
    results = []
    for compute in (log_probs.log_probs, plainly):
        values = compute(part, labels)
        results.append([values.detach(), *torch.autograd.grad(values, tensors(part), upstream)])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_half_precision_is_rounded_as_by_the_plain_path() -> None:
    """bfloat16 logits, all else in float32: no further from float64 than autograd through bfloat16 modules is."""
    labels = torch.arange(POSITIONS)
    exact = projection(LogitTransform(), bias=True, pairs=1)
    for tensor in tensors(exact):
        tensor.data = tensor.data.bfloat16().double()
    half = Projection(
        tuple(x.detach().bfloat16().requires_grad_() for x in exact.inputs),
        tuple(w.detach().bfloat16().requires_grad_() for w in exact.weights),
        exact.bias.detach().bfloat16().requires_grad_(),
        exact.transform,
    )
    wanted = torch.autograd.grad(plainly(exact, labels).sum(), tensors(exact))

    def distance(values: torch.Tensor) -> float:
        found = torch.autograd.grad(values.sum(), tensors(half))
        assert all(gradient.dtype == torch.bfloat16 for gradient in found)
        errors = [(ours.double() - theirs).norm() for ours, theirs in zip(found, wanted, strict=True)]
        return float(torch.stack(errors).norm())

    (inputs,), (weights,) = half.inputs, half.weights
    logits = nn.functional.linear(inputs, weights, half.bias).float()
    autograd = distance(logits.log_softmax(-1).gather(1, labels[:, None]))
    values = log_probs.log_probs(half, labels)
    assert values.dtype == torch.float32
    assert distance(values) <= 1.5 * autograd


def test_large_logits_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Around 1000, float32 rounds a logsumexp by 3e-5, but not the difference of two logits."""
    monkeypatch.setattr(log_probs, "FEWEST", 4)
    monkeypatch.setattr(log_probs, "BLOCK", 1)
    labels = torch.arange(POSITIONS)
    whole = projection(LogitTransform(), bias=True, pairs=1)
    for tensor in tensors(whole):
        tensor.data.mul_(2).round_()  # products and sums of small whole numbers are exact in float32 too
    whole.bias.data.add_(1000)
    single = whole._replace(
        inputs=(whole.inputs[0].detach().float().requires_grad_(),),
        weights=(whole.weights[0].detach().float().requires_grad_(),),
        bias=whole.bias.detach().float().requires_grad_(),
    )
    results = []
    for part, compute in ((single, log_probs.log_probs), (whole, plainly)):
        values = compute(part, labels)
        _, entropies = log_probs.log_probs_and_entropy(part, labels)
        results.append([values.detach(), entropies, *torch.autograd.grad(values.sum(), tensors(part))])
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-6, atol=2e-6)


def test_no_position_gives_zero_gradients() -> None:
    part = projection(LogitTransform(), bias=True, pairs=2)
    empty = part._replace(inputs=tuple(x.detach()[:0].requires_grad_() for x in part.inputs))
    values = log_probs.log_probs(empty, torch.zeros(0, dtype=torch.int64))
    assert values.shape == (0,)
    for gradient in torch.autograd.grad(values.sum(), tensors(empty)):
        assert (gradient == 0).all()


@pytest.mark.parametrize("words", [1, 4, 23, 100])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_entropy_is_that_of_log_softmax(
    transform: LogitTransform, words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_probs, "FEWEST", words)
    monkeypatch.setattr(log_probs, "BLOCK", 1)
    part = projection(transform, bias=True, pairs=2)
    assert part.bias is not None
    with torch.no_grad():
        part.bias[[3, 4, 22]] = -torch.inf if transform.cap is None else 0.0  # words that cannot occur
    labels = torch.tensor([0, 1, 2, 21, 20, 5, 7])
    values, entropy = log_probs.log_probs_and_entropy(part, labels)
    torch.testing.assert_close(values, plainly(part, labels).detach(), rtol=1e-10, atol=1e-12)
    everywhere = torch.stack([plainly(part, torch.full((POSITIONS,), word)) for word in range(WORDS)]).detach()
    plain = -torch.where(everywhere.isinf(), 0, everywhere.exp() * everywhere).sum(0)
    torch.testing.assert_close(entropy, plain, rtol=1e-10, atol=1e-12)
    assert not values.requires_grad and not entropy.requires_grad


def test_a_frozen_weight_gets_no_gradient() -> None:
    part = projection(LogitTransform(), bias=True, pairs=1)
    frozen = part._replace(weights=(part.weights[0].detach(),), bias=part.bias.detach())
    labels = torch.arange(POSITIONS)
    (ours,) = torch.autograd.grad(log_probs.log_probs(frozen, labels).sum(), frozen.inputs)
    (plain,) = torch.autograd.grad(plainly(frozen, labels).sum(), frozen.inputs)
    torch.testing.assert_close(ours, plain)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


def test_no_tensor_has_all_positions_and_all_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_probs, "FEWEST", 8)
    monkeypatch.setattr(log_probs, "BLOCK", 8 * 512)
    torch.manual_seed(0)
    inputs, weights = torch.randn(512, 4, requires_grad=True), torch.randn(400, 4, requires_grad=True)
    part = Projection((inputs,), (weights,), None, LogitTransform())
    labels = torch.randint(0, 400, (512,))
    with Largest() as ours:
        log_probs.log_probs(part, labels).sum().backward()
    with Largest() as plain:
        plainly(part, labels).sum().backward()
    assert plain.elements == 512 * 400
    assert ours.elements <= 8 * 512


def model_of(architecture: str, **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes, **heads, **changes))


@pytest.mark.parametrize(
    ("architecture", "changes", "expected"),
    [
        ("llama", {}, LogitTransform()),
        ("cohere", {"logit_scale": 0.25}, LogitTransform(scale=0.25)),
        ("cohere2", {"logit_scale": 0.5}, LogitTransform(scale=0.5)),
        ("granite", {"logits_scaling": 8.0}, LogitTransform(scale=0.125)),
        ("gemma2", {"final_logit_softcapping": 30.0}, LogitTransform(cap=30.0)),
        ("gemma2", {"final_logit_softcapping": None}, LogitTransform()),
        ("gemma3_text", {"final_logit_softcapping": 10.0}, LogitTransform(cap=10.0)),
    ],
)
def test_a_model_shows_its_transform(architecture: str, changes: dict[str, Any], expected: LogitTransform) -> None:
    found = probe_transform(model_of(architecture, **changes))
    assert found is not None and found.cap == expected.cap
    assert found.scale == pytest.approx(expected.scale, rel=1e-6)


def test_a_probed_model_keeps_its_forward_also_one_that_another_library_replaced() -> None:
    model = model_of("llama")
    ids = torch.tensor([[5, 6, 7]])
    expected = model(ids).logits
    replaced = model.model.forward
    model.model.forward = lambda *args, **kwargs: replaced(*args, **kwargs)
    other = model.model.forward
    assert probe_transform(model) == LogitTransform()
    assert model.model.forward is other and "forward" not in vars(model.lm_head)
    assert torch.equal(model(ids).logits, expected)


def test_logits_that_change_in_another_way_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that squares its logits, and one that hides a word."""
    from transformers import LlamaForCausalLM

    stock_forward = LlamaForCausalLM.forward
    for change in (lambda x: x * x.abs(), lambda x: x.index_fill(-1, torch.tensor([3]), -1e4)):

        def forward(self: Any, *args: Any, change: Any = change, **kwargs: Any) -> Any:
            output = stock_forward(self, *args, **kwargs)
            output.logits = change(output.logits)
            return output

        monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
        model = model_of("llama")
        assert probe_transform(model) is None and attach_log_probs(model) is None


@pytest.mark.parametrize("kind", ["DoRA", "merged", "another layer"])
def test_output_embeddings_of_another_kind_are_left_alone(kind: str) -> None:
    from peft import LoraConfig, get_peft_model

    model = model_of("llama")
    if kind == "another layer":
        model.set_output_embeddings(type("Other", (nn.Linear,), {})(16, 64))
    else:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"], use_dora=kind == "DoRA"))
    if kind == "merged":
        assert attach_log_probs(model).usable()
        model.merge_adapter()
        assert not model.get_base_model().critical_log_probs.usable()
    else:
        assert attach_log_probs(model) is None


def test_it_adds_nothing_to_what_is_saved() -> None:
    model = model_of("llama")
    names, modules = list(model.state_dict()), len(list(model.parameters()))
    assert attach_log_probs(model) is not None
    assert list(model.state_dict()) == names and len(list(model.parameters())) == modules
