"""GRPO by stock OpenRLHF, all parts real, on a tiny model: `examples/train_grpo.sh` as its users start it.

Weight sync is proven by what OpenRLHF itself logs: `is_filter_ratio`, the share of sampled tokens whose probability in
the engine is not within a thousandth of that in the trainer; all is float32. With the sync taken out the same test has
to fail. The learning rate is such that one update moves most probabilities by more than that, and leaves responses
long and logits small: a larger one makes a policy that float32 itself cannot tell to a thousandth.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path

import psutil
import pytest
from train_helpers import environment, make_model

from openrlhf_cft.curves import ENTROPY, REWARD, Curve, read_curves
from openrlhf_cft.data.records import tokenizer_fingerprint
from openrlhf_cft.reward import FAILURES

SCRIPT = Path(__file__).parents[2] / "examples" / "train_grpo.sh"
STEPS = 3
MARKER = "OPENRLHF_CFT_TEST_RUN"  # in the environment of every process of a run
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %} is"

# The verdicts are ours. A random model is never right, so letters are rewarded: otherwise nothing would be learnt.
REWARDS = """
from openrlhf_cft.reward import reward_func as judge

def reward_func(queries, prompts, labels):
    import torch
    result = judge(queries, prompts, labels)
    (query,), (prompt,) = queries, prompts
    letters = sum(character.isalpha() for character in query[len(prompt):]) / max(1, len(query) - len(prompt))
    return {**result, "rewards": result["rewards"] + letters}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("grpo")
    tokenizer = AutoTokenizer.from_pretrained(make_model(folder / "model"))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "model")
    never_end_at_once(folder / "model", tokenizer("the sum of 1 and 1 is").input_ids)
    labels = ["3", 4, {"verifier": "exact", "answer": "5"}]
    rows = [{"question": f"the sum of {i} and {i}", "answer": json.dumps(labels[i % 3])} for i in range(2 * STEPS)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(REWARDS)
    return folder


def never_end_at_once(path: Path, prompt: list[int]) -> None:
    """Make the end of a response very improbable as its first token.

    OpenRLHF asks the engine for one token at least. So an end that may come first has its probability there given to
    the other tokens, and they would differ from the trainer's by that much.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        hidden_H = model.model(torch.tensor([prompt])).last_hidden_state[0, -1]
        model.lm_head.weight[model.config.eos_token_id] = -20 * hidden_H / hidden_H.square().sum()
    model.save_pretrained(path)


def train(folder: Path, name: str, tree: Path | None = None) -> Path:
    """A run of three steps, after which nothing may be left of it. The folder of what it wrote."""
    out, marker, left = folder / name, str(uuid.uuid4()), folder / f"{name}.left"
    paths = {"MODEL": folder / "model", "DATA": folder / "data.jsonl", "OUT": out, "VERIFIER": folder / "rewards.py"}
    sizes = {"PROMPTS": 2, "SAMPLES": 8, "MICRO": 8, "PROMPT_LENGTH": 96, "LENGTH": 32, "LR": 1e-3, "SAVE": 2}
    settings = {
        **paths,
        **sizes,
        "PARAM_DTYPE": "fp32",
        MARKER: marker,
        "VLLM_CPU_KVCACHE_SPACE": 1,
        "OPENRLHF_CFT_VERIFIER_WORKERS": 1,
    }
    check = [
        "--algo.advantage.is_correction_level",
        "token",
        "--algo.advantage.is_correction_threshold",
        "0.999",
        "1.001",
    ]
    memory = set(os.listdir("/dev/shm"))
    with (out.parent / f"{name}.log").open("w+") as log:
        variables = environment(tree) | {key: str(value) for key, value in settings.items()}
        command = [*private_memory(left), "bash", str(SCRIPT), *check]
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
        try:
            code = process.wait(600)
            _, alive = psutil.wait_procs(processes_of(marker), timeout=300)
        finally:
            for found in processes_of(marker):
                found.kill()
        log.seek(0)
        assert code == 0, log.read()[-6000:]
    assert not alive, "processes are left, and with them their ports"
    assert not (left.read_text() if left.exists() else set(os.listdir("/dev/shm")) - memory), "shared memory is left"
    return out


def private_memory(left: Path) -> list[str]:
    """What runs a command with shared memory of its own, since tests beside this one kill what uses the machine's.

    What is in it when all is over goes to a file. Nothing where there are no namespaces.
    """
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c"]
    mount = "mount -t tmpfs tmpfs /dev/shm"
    if subprocess.run([*namespace, mount], capture_output=True).returncode:
        return []
    await_end = 'for _ in {1..60}; do [ -z "$(ls /dev/shm)" ] && break; sleep 1; done; ls /dev/shm'
    return [*namespace, f'{mount} && "$@"; code=$?; ({await_end}) > "$0"; exit $code', str(left)]


def processes_of(marker: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == marker:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    return train(folder, "trained")


def curves_of(out: Path) -> dict[str, Curve]:
    return read_curves(out / "tensorboard" / "grpo")


@pytest.mark.slow
def test_every_step_is_logged(trained: Path) -> None:
    curves = curves_of(trained)
    assert curves[ENTROPY].steps == curves[REWARD].steps == list(range(1, STEPS + 1))
    assert all(0 < value < 7 for value in curves[ENTROPY].values)
    outcomes = [curves[tag].values for tag in ("train/score", *(f"train/verdict/{name}" for name in FAILURES))]
    assert [sum(step) for step in zip(*outcomes, strict=True)] == pytest.approx([1.0] * STEPS)
    assert curves["train/verdict/failed"].values == curves["train/verdict/bad_label"].values == [0.0] * STEPS


@pytest.mark.slow
def test_the_engine_has_the_weights_of_the_trainer(trained: Path) -> None:
    assert outside(trained) == pytest.approx([0.0] * STEPS, abs=0.02)


@pytest.mark.all
def test_without_weight_sync_the_engine_is_left_behind(folder: Path) -> None:
    """The control of the test above: a copy of OpenRLHF in which only the sync is missing."""
    import openrlhf

    tree = folder / "tree"
    shutil.copytree(Path(openrlhf.__file__).parent, tree / "openrlhf")
    file = tree / "openrlhf" / "trainer" / "ppo_trainer.py"
    sync = 'ray.get(self.actor_model_group.async_run_method(method_name="broadcast_to_vllm"))'
    assert file.read_text().count(sync) == 1
    file.write_text(file.read_text().replace(sync, "pass"))
    first, _, last = outside(train(folder, "unsynced", tree))  # the first update has a learning rate of 0, to warm up
    assert first < 0.02 and last > 0.5


def outside(out: Path) -> list[float]:
    """Per step, the share of tokens whose probability in the engine is not the trainer's."""
    return curves_of(out)["train/is_filter_ratio"].values


@pytest.mark.slow
def test_the_checkpoint_is_complete(folder: Path, trained: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before, after = (AutoTokenizer.from_pretrained(path) for path in (folder / "model", trained))
    assert after.chat_template == TEMPLATE
    assert tokenizer_fingerprint(after) == tokenizer_fingerprint(before)
    old, new = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (folder / "model", trained))
    assert any(not new[name].equal(old[name].to(new[name].dtype)) for name in old)
