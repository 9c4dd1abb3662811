"""GPUs of a Ray cluster: whether there are enough for the engines, and which of them an engine uses.

Engines of a small model may share GPUs. Their work in Python, not the GPU, limits such a model.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from typing import Any

from openrlhf_cft.engine.gpu_share import GPU_SHARE
from openrlhf_cft.errors import InputError, JobError

logger = logging.getLogger(__name__)

WAIT_SECONDS = 900.0  # for the nodes that an autoscaler starts; a start takes minutes
MOST_ON_A_GPU = 4  # engines; each has a CUDA context of about half a GiB
NOSET = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"  # Ray then leaves CUDA_VISIBLE_DEVICES alone


def engines_that_fit(nodes: Iterable[dict[str, Any]], gpus_per_engine: int) -> int:
    """How many engines fit on the nodes. All GPUs of an engine must be on one node.

    Args:
        nodes: as `ray.nodes()` returns them.
        gpus_per_engine: at least 1.
    """
    alive = (node["Resources"].get("GPU", 0.0) for node in nodes if node["Alive"])
    return sum(int(gpus // gpus_per_engine) for gpus in alive)


def await_gpus(num_engines: int, gpus_per_engine: int, joined: bool, may_share: bool = False) -> float:
    """Return once the connected Ray has GPUs for all engines. Without this, engines could be "starting" for ever.

    Args:
        num_engines, gpus_per_engine: both at least 1.
        joined: whether this is a running cluster. Then we ask its autoscaler for missing nodes, and wait for them.
        may_share: whether several engines may run on one GPU. They do if their number is 2, 3 or 4 times that of the
            GPUs.

    Returns:
        The GPUs that each engine takes: `gpus_per_engine`, or a share of one.

    Raises:
        InputError: a local Ray has too few GPUs.
        JobError: a cluster still has too few GPUs after `WAIT_SECONDS`.
    """
    import ray

    room = engines_that_fit(ray.nodes(), gpus_per_engine)
    if room >= num_engines:
        return gpus_per_engine
    if may_share and gpus_per_engine == 1 and num_engines in [room * many for many in range(2, MOST_ON_A_GPU + 1)]:
        many = num_engines // room
        logger.info("ray: %d engines share each of %d GPUs, with 1/%d of its memory each", many, room, many)
        return 1 / many
    engine = "an engine needs a GPU" if gpus_per_engine == 1 else f"an engine needs {gpus_per_engine} GPUs of one node"
    fault = f"--vllm.num_engines {num_engines}: {engine}, and there are GPUs for {room}"
    if may_share and gpus_per_engine == 1 and room:
        fault += f"; {2 * room} engines of this small model would share them, two to a GPU"
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
    return gpus_per_engine


def take_own_gpus() -> None:
    """In an actor: tell its engine which share of a GPU it has, and show it only the GPUs that Ray has assigned to it.

    Ray itself shows an actor its own GPUs alone, unless `NOSET` is set: then we do it, as OpenRLHF does for its
    engines. Otherwise all of them would use the first GPU.
    """
    import ray

    share = ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)
    if 0 < share < 1:
        os.environ[GPU_SHARE] = str(share)
    if os.environ.get(NOSET):
        own = ray.get_gpu_ids()
        if own:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, own))
