"""GPUs that a job asks for and that a cluster has; Ray believes any number of them, so none is needed here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from openrlhf_cft.jobs.gpus import engines_that_fit

SCRIPT = Path(__file__).parents[1] / "support" / "gpus_script.py"


def nodes(*gpus: float | None) -> list[dict[str, Any]]:
    """As `ray.nodes()`; None is a node that has gone."""
    return [{"Alive": n is not None, "Resources": {"CPU": 4.0, **({"GPU": n} if n else {})}} for n in gpus]


@pytest.mark.parametrize(
    ("there", "gpus_per_engine", "engines"),
    [
        (nodes(8, 8), 1, 16),
        (nodes(8, 8), 4, 4),
        (nodes(3, 3), 2, 2),  # an engine is on one node
        (nodes(4, 4), 8, 0),
        (nodes(0, None, 2), 1, 2),
        ([], 1, 0),
    ],
)
def test_an_engine_has_its_gpus_on_one_node(there: list[dict[str, Any]], gpus_per_engine: int, engines: int) -> None:
    assert engines_that_fit(there, gpus_per_engine) == engines


@pytest.mark.slow
def test_gpus_of_a_cluster(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["enough"] == ["1", "3", "2"]
    assert seen["too_few"] == [
        "InputError: --vllm.num_engines 4: an engine needs a GPU, and there are GPUs for 3",
        "InputError: --vllm.num_engines 2: an engine needs 2 GPUs of one node, and there are GPUs for 1",
    ]
    assert seen["shared"] == ["0.5", "0.333333", "1"]
    hint = "; 6 engines of this small model would share them, two to a GPU"
    assert seen["shared_too_few"] == [
        f"InputError: --vllm.num_engines 4: an engine needs a GPU, and there are GPUs for 3{hint}",
        f"InputError: --vllm.num_engines 15: an engine needs a GPU, and there are GPUs for 3{hint}",
        "InputError: --vllm.num_engines 2: an engine needs 2 GPUs of one node, and there are GPUs for 1",
    ]
    assert seen["waited"][1] == "2", "a node came"
    assert "there are GPUs for 1 in the cluster: waiting 15 minutes for new nodes" in seen["waited"][0]
    assert seen["never"].startswith("JobError: --vllm.num_engines 9: an engine needs a GPU, and there are GPUs for 5")
    assert sorted(Counter(gpu for gpu, _ in seen["shares"]).values()) == [2, 2, 2]
    assert sorted(Counter(gpu for gpu, _ in seen["thirds"]).values()) == [3, 3, 3]
    assert {share for _, share in seen["shares"]} == {0.5} and {share for _, share in seen["thirds"]} == {0.3333}
    assert len(set(seen["devices"])) == 2 and all(device.isdigit() for device in seen["devices"])
