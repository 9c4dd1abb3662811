"""The memory that a model needs, and the roofline of decoding with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from train_helpers import make_model
from transformers import AutoModelForCausalLM, Gemma3Config, LlamaConfig, Qwen2Config

from openrlhf_cft.doctor.fit import CARDS, GIB, Size, cache_bytes, card_of, fit, size_of, tokens_per_second

QWEN_7B = Size(7_615_616_512, 57_344)


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_the_model(tied: bool, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", tied=tied)
    whole = AutoModelForCausalLM.from_pretrained(model)
    assert size_of(str(model)).parameters == whole.num_parameters()


def test_keys_and_values_of_a_token() -> None:
    qwen_7b = Qwen2Config(
        hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4, vocab_size=8
    )
    assert cache_bytes(qwen_7b) == QWEN_7B.cache_bytes
    wide = LlamaConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, head_dim=32, vocab_size=8)
    assert cache_bytes(wide) == 2 * 2 * 2 * 4 * 32, "as many heads as there are, as wide as they are"
    text = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 32,
        "num_key_value_heads": 4,
    }
    assert cache_bytes(Gemma3Config(text_config=text)) == cache_bytes(wide), "of a model that reads pictures, too"


@pytest.mark.parametrize(
    ("name", "card"),
    [("NVIDIA L40", "L40"), ("NVIDIA L40S", "L40S"), ("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA L4", "L4")],
)
def test_a_card_is_known_by_its_whole_name(name: str, card: str) -> None:
    assert card_of(name) is CARDS[card]
    assert card_of("NVIDIA RTX A1000") is None, "no A100"


@pytest.mark.parametrize(("batch", "wanted"), [(128, 24_700), (256, 43_700)])
def test_few_responses_are_bound_by_memory(batch: int, wanted: int) -> None:
    """15.2 GB of weights and 300 tokens of cache a response, read at 3.35 TB/s."""
    assert tokens_per_second(QWEN_7B, batch, 300, 1, CARDS["H100"]) == pytest.approx(wanted, rel=0.01)


def test_many_are_bound_by_arithmetic_and_gpus_share_both() -> None:
    many = tokens_per_second(QWEN_7B, 1024, 10, 1, CARDS["H100"])
    assert many == pytest.approx(989e12 / (2 * QWEN_7B.parameters))
    assert tokens_per_second(QWEN_7B, 1024, 10, 4, CARDS["H100"]) == pytest.approx(4 * many)


def test_what_does_not_fit_says_on_how_many_gpus_it_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openrlhf_cft.doctor.fit.size_of", lambda model: Size(70_000_000_000, 327_680))
    (line,) = fit("70B", 1, 80.0, "H100", 1000, 200, 1024)
    assert line.fatal and "no response of 1024 tokens fits on 1 × 80 GiB" in line.problem
    needed = int(line.remedy.split()[1])
    assert line.remedy == f"--vllm.tensor_parallel_size {needed} or more" and needed == 2
    lines = fit("70B", needed, 80.0, "H100", 1000, 200, 1024)
    assert not any(found.problem for found in lines)
    tokens = (2 * (0.9 * 80 * GIB - 2 * GIB) - 140e9) / 327_680
    assert f"{int(tokens):,} tokens: {int(tokens) // 1024:,} responses of 1024 at once" in lines[1].value
