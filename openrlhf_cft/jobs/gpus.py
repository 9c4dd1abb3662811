"""GPUs of a Ray cluster: whether there are enough for the engines, and which of them an engine uses."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from typing import Any

from openrlhf_cft.errors import InputError, JobError

logger = logging.getLogger(__name__)

WAIT_SECONDS = 900.0  # for the nodes that an autoscaler starts; a start takes minutes
NOSET = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"  # Ray then leaves CUDA_VISIBLE_DEVICES alone


def engines_that_fit(nodes: Iterable[dict[str, Any]], gpus_per_engine: int) -> int:
    """How many engines fit on the nodes. All GPUs of an engine must be on one node.

    Args:
        nodes: as `ray.nodes()` returns them.
        gpus_per_engine: at least 1.
    """
    alive = (node["Resources"].get("GPU", 0.0) for node in nodes if node["Alive"])
    return sum(int(gpus // gpus_per_engine) for gpus in alive)


def await_gpus(num_engines: int, gpus_per_engine: int, joined: bool) -> None:
    """Return once the connected Ray has GPUs for all engines. Without this, engines could be "starting" for ever.

    Args:
        num_engines, gpus_per_engine: both at least 1.
        joined: whether this is a running cluster. Then we ask its autoscaler for missing nodes, and wait for them.

    Raises:
        InputError: a local Ray has too few GPUs.
        JobError: a cluster still has too few GPUs after `WAIT_SECONDS`.
    """
    import ray

    room = engines_that_fit(ray.nodes(), gpus_per_engine)
    if room >= num_engines:
        return
    engine = "an engine needs a GPU" if gpus_per_engine == 1 else f"an engine needs {gpus_per_engine} GPUs of one node"
    fault = f"--vllm.num_engines {num_engines}: {engine}, and there are GPUs for {room}"
    if not joined:
        raise InputError(fault)
    from ray.autoscaler.sdk import request_resources

    logger.warning("ray: %s in the cluster: waiting %.0f minutes for new nodes", fault, WAIT_SECONDS / 60)
    request_resources(bundles=[{"GPU": gpus_per_engine}] * num_engines)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while engines_that_fit(ray.nodes(), gpus_per_engine) < num_engines:
            if time.monotonic() > deadline:
                raise JobError(f"{fault} in the cluster, after {WAIT_SECONDS / 60:.0f} minutes")
            time.sleep(1.0)
    finally:
        request_resources(bundles=[])  # from now on the engines themselves request GPUs


def show_own_gpus() -> None:
    """In an actor: make only the GPUs visible that Ray has assigned to it, if `NOSET` keeps Ray from doing that.

    OpenRLHF does the same for its engines. Otherwise all of them would use the first GPU.
    """
    import ray

    if os.environ.get(NOSET):
        own = ray.get_gpu_ids()
        if own:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, own))
