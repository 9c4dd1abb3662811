"""The tokens that end a response, from every place where a model may name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_families import CHAT, gpt2
from train_helpers import make_model

from openrlhf_cft.data.stop_tokens import stop_token_ids, turn_end
from openrlhf_cft.errors import InputError

ENDS = {"qwen": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "deepseek_r1": "<|end|>"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def tokenizer_of(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def configure(model: Path, name: str, **values: Any) -> None:
    path = model / name
    path.write_text(json.dumps({**json.loads(path.read_text() if path.exists() else "{}"), **values}))


def vllms(model: Path) -> set[int]:
    """As vLLM 0.29 has them for a model with this tokenizer."""
    from vllm.transformers_utils.config import try_get_generation_config

    config = try_get_generation_config(str(model), trust_remote_code=False)
    assert config is not None
    ids = config.to_diff_dict().get("eos_token_id")
    return {*(ids if isinstance(ids, list) else [ids] if ids is not None else []), tokenizer_of(model).eos_token_id}


@pytest.mark.slow  # imports vllm
def test_they_are_vllms(model: Path) -> None:
    tokenizer = tokenizer_of(model)
    cases: list[tuple[Any, Any]] = [([7, 8], 9), (7, [8, 9]), (None, [8, 9]), (None, 8)]
    for generation, config in cases:
        configure(model, "config.json", eos_token_id=config)
        (model / "generation_config.json").unlink(missing_ok=True)
        if generation is not None:
            configure(model, "generation_config.json", eos_token_id=generation)
        found = stop_token_ids(tokenizer, str(model), {}, chat=False)
        assert found == vllms(model) and found > {tokenizer.eos_token_id}


def test_the_engines_arguments_count(model: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(model)
    other = tmp_path / "other"
    other.mkdir()
    configure(other, "generation_config.json", eos_token_id=[5])
    arguments = {"generation_config": str(other), "override_generation_config": {"eos_token_id": 6}}
    assert stop_token_ids(tokenizer, str(model), arguments, chat=False) == {5, 6, tokenizer.eos_token_id}
    assert 5 not in stop_token_ids(tokenizer, str(model), {"generation_config": "vllm"}, chat=False)


def test_no_stop_token_at_all(model: Path) -> None:
    tokenizer = tokenizer_of(model)
    tokenizer.eos_token = None
    configure(model, "config.json", eos_token_id=None)
    (model / "generation_config.json").unlink(missing_ok=True)
    with pytest.raises(
        InputError, match=r"has no stop token: no eos_token_id in generation_config\.json or config\.json"
    ):
        stop_token_ids(tokenizer, str(model), {}, chat=False)


@pytest.mark.parametrize("family", CHAT)
def test_the_end_of_a_turn(family: str, model: Path) -> None:
    tokenizer = CHAT[family]()
    end = turn_end(tokenizer)
    assert tokenizer.convert_ids_to_tokens(end) == ENDS.get(family, "</s>")
    assert end in stop_token_ids(tokenizer, str(model), {}, chat=True)


def test_templates_that_say_nothing_of_the_end(model: Path) -> None:
    assert turn_end(gpt2()) is None
    tokenizer = CHAT["qwen"]()
    for template in ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "{{ raise_exception('no') }}"):
        tokenizer.chat_template = template
        assert turn_end(tokenizer) is None
