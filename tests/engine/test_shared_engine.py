"""Which checkpoints share an engine, whose weights it has when, and that they are the right ones."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from train_helpers import make_model, run_command, tail

from openrlhf_cft.engine import shared_engine
from openrlhf_cft.engine.engine_log import EngineLog
from openrlhf_cft.engine.shared_engine import RELOADED, SharedEngine, sharing
from openrlhf_cft.engine.vllm_engine import EngineSettings, VllmGenerator
from openrlhf_cft.errors import EngineError, JobError

SCRIPT = Path(__file__).parents[1] / "support" / "reload_script.py"


def edit(name: str, **values: Any) -> Callable[[Path], None]:
    """Change values in a model's JSON file."""

    def change(model: Path) -> None:
        file = model / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


def other_tokenizer(model: Path) -> None:
    """Two tokens change their ids."""
    written = json.loads((model / "tokenizer.json").read_text())
    vocabulary = written["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (model / "tokenizer.json").write_text(json.dumps(written))


def without_a_tensor(model: Path) -> None:
    """vLLM would take the missing one from the checkpoint before."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def cut(model: Path) -> None:
    with (model / "model.safetensors").open("rb+") as file:
        file.truncate(5000)


@pytest.fixture
def two(tmp_path: Path) -> dict[str, Path]:
    models = {name: make_model(tmp_path / name, seed=seed) for seed, name in enumerate("ab")}
    # As a training saves it.
    edit("config.json", use_cache=False, transformers_version="4.0", pad_token_id=None)(models["b"])
    return models


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (edit("config.json", rms_norm_eps=1e-3), {}),
        (edit("config.json", dtype="bfloat16"), {"dtype": "auto"}),
        (edit("config.json", architectures=["OlmoForCausalLM"]), {}),
        (edit("config.json", quantization_config={"quant_method": "awq"}), {}),
        (edit("generation_config.json", eos_token_id=[1, 2]), {}),
        (other_tokenizer, {}),
        (without_a_tensor, {}),
        (cut, {}),
    ],
)
def test_checkpoints_that_differ_have_their_own_engines(
    change: Callable[[Path], None], settings: dict[str, str], two: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openrlhf_cft.engine.platform.has_fast_bfloat16", lambda: True)  # else all are in float32
    engines = {name: EngineSettings(str(path), **{"dtype": "float32", **settings}) for name, path in two.items()}
    assert sharing(engines) == [engines]
    change(two["b"])
    assert sharing(engines) == [{name: engine} for name, engine in engines.items()]


def test_what_no_test_has_compared_is_not_shared(two: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(**settings: Any) -> bool:
        return len(sharing({name: EngineSettings(str(path), **settings) for name, path in two.items()})) == 1

    assert shared(engine_args={"max_num_seqs": 8})
    assert not shared(engine_args={"quantization": "fp8"})
    assert not shared(engine_args={"load_format": "dummy"})
    monkeypatch.setattr(shared_engine, "uses_gpu", lambda: True)
    assert not shared()


def test_groups_keep_the_order(two: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(two["a"], tmp_path / "c")
    edit("config.json", rms_norm_eps=1e-3)(tmp_path / "b")
    engines = {name: EngineSettings(str(tmp_path / name), dtype="float32") for name in "abc"}
    assert [list(group) for group in sharing(engines)] == [["a", "c"], ["b"]]


class Scripted:
    """In place of `VllmGenerator`: says which weights it has, and refuses to change them while it is used."""

    def __init__(self, settings: EngineSettings) -> None:
        self.model, self.used, self.loads, self.dead = settings.model, 0, 0, False

    async def load(self, model: str) -> None:
        assert not self.used
        self.loads += 1
        self.model = ""
        await asyncio.sleep(0.01)
        if model == "/broken":
            raise JobError("cannot load it")
        self.model = model

    async def generate(self) -> str:
        self.used += 1
        model = self.model
        await asyncio.sleep(0.01)
        assert self.model == model
        self.used -= 1
        return model


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> SharedEngine:
    monkeypatch.setattr(shared_engine, "VllmGenerator", Scripted)
    return SharedEngine({name: EngineSettings(f"/{name}") for name in ("a", "b", "broken")})


async def ask(shared: SharedEngine, name: str) -> str:
    async with shared.at(name) as engine:
        return await engine.generate()  # type: ignore[call-arg, return-value, arg-type]


def test_a_request_is_answered_by_its_own_checkpoint(shared: SharedEngine) -> None:
    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(ask(shared, name) for name in "aaabababbb"))

    assert asyncio.run(all_at_once()) == [f"/{name}" for name in "aaabababbb"]
    assert shared.generator.loads == 1, "those that have the weights go first"  # type: ignore[attr-defined]


def test_after_a_checkpoint_that_does_not_load_there_is_no_answer(shared: SharedEngine) -> None:
    async def asked(*names: str) -> list[Any]:
        return await asyncio.gather(*(ask(shared, name) for name in names), return_exceptions=True)

    first, *others = asyncio.run(asked("a", "broken", "b"))
    assert first == "/a" and shared.dead
    others += asyncio.run(asked("a"))
    mixed = "the engine may have weights of two checkpoints"
    assert [str(error) for error in others] == ["cannot load it", mixed, mixed]


class Unanswered:
    """In place of vLLM's AsyncLLM: its core dies while it loads weights, and the call is never answered."""

    errored = False

    async def collective_rpc(self, *_: object, **__: object) -> None:
        self.errored = True
        await asyncio.sleep(3600)


def generator(engine: object) -> VllmGenerator:
    """A `VllmGenerator` whose engine is scripted."""
    made = object.__new__(VllmGenerator)
    made._llm, made._log = engine, EngineLog()  # type: ignore[assignment]
    return made


def test_an_engine_that_dies_while_it_loads_is_noticed() -> None:
    with pytest.raises(EngineError, match=r"the engine died while it loaded '/b'"):
        asyncio.run(generator(Unanswered()).load("/b"))


class Answering:
    """In place of AsyncLLM: refuses the weights, or to forget its prefixes."""

    errored = False

    def __init__(self, refused: bool) -> None:
        self.refused = refused

    async def collective_rpc(self, method: str, args: tuple[str, ...]) -> None:
        assert (method, args) == ("load_checkpoint", ("/b",))
        if self.refused:
            raise RuntimeError("no such file")

    async def reset_prefix_cache(self) -> bool:
        return False


def test_weights_that_cannot_be_loaded_end_the_job_and_kept_prefixes_the_engine() -> None:
    with pytest.raises(JobError, match=r"the engine cannot load '/b': RuntimeError: no such file"):
        asyncio.run(generator(Answering(refused=True)).load("/b"))
    with pytest.raises(EngineError, match=r"the engine keeps prefixes of the weights before '/b'"):
        asyncio.run(generator(Answering(refused=False)).load("/b"))


@pytest.mark.slow
@pytest.mark.all
@pytest.mark.timeout(900)
@pytest.mark.parametrize("architecture", sorted(RELOADED))
def test_loaded_weights_are_those_of_the_checkpoint(architecture: str, tmp_path: Path) -> None:
    """With tied output embeddings and with their own; `make test` does it with SmolLM2, in `test_end_to_end.py`."""
    result = run_command([sys.executable, str(SCRIPT), architecture, str(tmp_path)], timeout=800)
    assert result.returncode == 0, tail(result)
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("{"))
    found = json.loads(line)
    print(line)
    assert len(found) == 9
    for name, (difference, other) in found.items():
        assert difference < (1e-4 if name.startswith("float32") else 1) < 5 < other, name
