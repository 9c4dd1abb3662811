"""A model by its path: code of its own is trusted wherever OpenRLHF trusts it, and changed weights are noticed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from train_helpers import make_model, make_rows, write_rows

from openrlhf_cft.data import model_files
from openrlhf_cft.data.annotated import open_data
from openrlhf_cft.data.model_files import load_config, weights_fingerprint
from openrlhf_cft.data.tokenizer import load_tokenizer, tokenizer_if_any, tokenizer_of
from openrlhf_cft.engine import scoring_process, token_scores
from openrlhf_cft.engine.vllm_engine import EngineSettings
from openrlhf_cft.errors import InputError

CODE = """
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

class OwnConfig(Qwen2Config):
    model_type = "own"

class OwnModel(Qwen2ForCausalLM):
    config_class = OwnConfig

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


def with_own_code(model: Path) -> Path:
    """Make a checkpoint one that only its own code can load."""
    (model / "own.py").write_text(CODE)
    for name, changes in {
        "config.json": {
            "model_type": "own",
            "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
        },
        "tokenizer_config.json": {
            "tokenizer_class": "OwnTokenizer",
            "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
        },
    }.items():
        (model / name).write_text(json.dumps({**json.loads((model / name).read_text()), **changes}))
    return model


def test_a_model_with_code_of_its_own_is_loaded_everywhere(tmp_path: Path) -> None:
    plain = make_model(tmp_path / "plain")
    own = with_own_code(shutil.copytree(plain, tmp_path / "own"))
    assert load_config(str(own)).model_type == "own"
    assert type(load_tokenizer(str(own))).__name__ == "OwnTokenizer"
    assert EngineSettings(str(own)).resolved()["trust_remote_code"] is True
    row = {"id": "a", "prompt_token_ids": [5, 6], "response_token_ids": [7, 8, 9]}
    nll = [list(token_scores.token_scores(token_scores.load_model(str(path)), [row], "nll")) for path in (plain, own)]
    assert nll[0] == nll[1]
    assert type(scoring_process.load(str(own))).__name__ == "OwnModel"


def test_code_of_a_model_that_only_a_data_file_names_is_not_run(tmp_path: Path) -> None:
    model = with_own_code(make_model(tmp_path / "model"))
    (model / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + CODE)
    row = {**make_rows(1)[0], "id": "a"}
    data = open_data(write_rows(tmp_path / "data", [row], {"model": str(model)}))
    tokenizer_if_any(data, None)
    with suppress(InputError):
        tokenizer_of(data)
    with suppress(InputError):
        token_scores.load_model(str(model), named=False)
    assert not (tmp_path / "ran").exists()
    load_tokenizer(str(model))
    assert (tmp_path / "ran").exists()


def test_a_broken_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    model = with_own_code(make_model(tmp_path / "model"))
    (model / "own.py").write_text("raise RuntimeError('made for another version\\nof transformers')")
    for load in (load_config, load_tokenizer, token_scores.load_model):
        with pytest.raises(InputError, match=r"--model.model_name_or_path: cannot load .*: made for another version$"):
            load(str(model))
    os.remove(model / "model.safetensors")
    shutil.copy(make_model(tmp_path / "other") / "config.json", model)
    with pytest.raises(InputError, match=r"it holds no weights \(\.safetensors, "):
        load_config(str(model))


def test_every_file_of_weights_counts(tmp_path: Path) -> None:
    for name in ("one.safetensors", "two.bin"):
        (tmp_path / name).write_bytes(b"a" * 100_000)
    prints = [weights_fingerprint(str(tmp_path))]
    (tmp_path / "two.bin").write_bytes(b"a" * 70_000 + b"b" + b"a" * 29_999)
    prints.append(weights_fingerprint(str(tmp_path)))
    (tmp_path / "one.safetensors").rename(tmp_path / "three.safetensors")
    prints.append(weights_fingerprint(str(tmp_path)))
    (tmp_path / "notes.txt").write_text("no weights")
    assert len(set(prints)) == 3 and weights_fingerprint(str(tmp_path)) == prints[-1]


def test_a_hub_model_is_known_by_its_commit_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Config:
        _commit_hash: str | None = "0123abcd"

    monkeypatch.setattr(model_files, "load_config", lambda model, flag, revision: Config())
    assert weights_fingerprint("org/name") == "0123abcd"
    Config._commit_hash = None
    with pytest.raises(InputError, match=r"--eval\.checkpoints: cannot determine the commit of 'org/name'"):
        weights_fingerprint("org/name", "--eval.checkpoints")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "there is no such folder, and the model hub is not in reach"),
        ({"HF_HUB_OFFLINE": "1"}, "cannot load 'models/mine': "),
    ],
)
def test_a_name_without_a_folder_is_refused_at_once_where_no_hub_answers(
    variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    """Loading would try the hub again and again for 23 s."""
    code = (
        "from openrlhf_cft.data import model_files\n"
        "try:\n"
        "    model_files.load_config('models/mine')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and said in done.stdout, done.stdout + done.stderr


def test_a_model_that_is_on_disk_at_the_wanted_revision_needs_no_hub(tmp_path: Path) -> None:
    """The layout of the hub's own cache, with one revision that is not `main`."""
    repository = tmp_path / "hub" / "models--models--mine"
    make_model(repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text("0123")
    code = (
        "import time\n"
        "time.sleep = lambda seconds: None\n"  # the hub's library waits 23 s before each file that it has on disk
        "from openrlhf_cft.data import model_files\n"
        "from openrlhf_cft.engine.vllm_engine import EngineSettings\n"
        "engine = EngineSettings('models/mine', engine_args={'revision': 'v1'})\n"
        "print(model_files.load_config('models/mine', revision='v1').model_type, len(engine.load_tokenizer()))\n"
        "try:\n"
        "    EngineSettings('models/mine').load_tokenizer()\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    first, last = done.stdout.splitlines()[-2:]
    assert int(first.split()[1]) > 0, done.stdout + done.stderr
    assert "cannot load 'models/mine': there is no such folder, and the model hub is not in reach" in last
