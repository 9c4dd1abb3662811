"""A real Ray cluster whose nodes say that they have GPUs: what `jobs.gpus` does on it. Run by `test_gpus.py`.

Prints JSON: what was seen.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
import threading
import time
from typing import Any

from openrlhf_cft import log
from openrlhf_cft.jobs import gpus


def outcome(*arguments: Any) -> str:
    """What `await_gpus` raises, or the GPUs that an engine has by it."""
    try:
        return f"{gpus.await_gpus(*arguments):g}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def waited(cluster: Any) -> tuple[str, str]:
    """What `await_gpus` logs and raises where a node comes once it has said that it waits."""
    printed, raised = io.StringIO(), []
    log.show()
    with contextlib.redirect_stderr(printed):
        waiting = threading.Thread(target=lambda: raised.append(outcome(2, 2, True)))
        waiting.start()
        while waiting.is_alive() and "waiting" not in printed.getvalue():
            time.sleep(0.05)
        cluster.add_node(num_cpus=1, num_gpus=2)  # of the main thread alone, as it sets signal handlers
        waiting.join()
    return printed.getvalue(), raised[0]


def visible_devices(names: list[str]) -> list[str]:
    """CUDA_VISIBLE_DEVICES as actors of one GPU each see it."""
    import ray

    @ray.remote(num_cpus=0, num_gpus=1)
    class Actor:
        def devices(self) -> str:
            gpus.take_own_gpus()
            return os.environ.get("CUDA_VISIBLE_DEVICES", "")

    actors = [Actor.remote() for _ in names]
    return sorted(ray.get([actor.devices.remote() for actor in actors]))


def shares(count: int, share: float) -> list[tuple[str, float]]:
    """The GPU of each of some actors that share GPUs, and what its engine knows of its share."""
    import ray

    from openrlhf_cft.engine.gpu_share import gpu_share

    @ray.remote(num_cpus=0, num_gpus=share)
    class Actor:
        def share(self) -> tuple[str, float]:
            gpus.take_own_gpus()
            return os.environ.get("CUDA_VISIBLE_DEVICES", ""), gpu_share()

    actors = [Actor.remote() for _ in range(count)]
    return sorted(ray.get([actor.share.remote() for actor in actors]))


def main() -> None:
    # Not Ray's usual folder: there it notes the address of a cluster for every later `ray.init()` on the machine.
    folder = tempfile.mkdtemp(prefix="ray-")
    os.environ |= {gpus.NOSET: "1", "RAY_TMPDIR": folder}
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 3})
    ray.init(address=cluster.address, logging_level="ERROR")
    seen: dict[str, Any] = {"enough": [outcome(3, 1, False), outcome(1, 3, False), outcome(1, 2, True)]}
    seen["too_few"] = [outcome(4, 1, False), outcome(2, 2, False)]
    seen["shared"] = [outcome(6, 1, False, True), outcome(9, 1, False, True), outcome(3, 1, False, True)]
    seen["shared_too_few"] = [outcome(4, 1, False, True), outcome(15, 1, False, True), outcome(2, 2, False, True)]
    seen["devices"] = visible_devices(["a", "b"])
    seen["shares"], seen["thirds"] = shares(6, 1 / 2), shares(9, 1 / 3)
    seen["waited"] = waited(cluster)
    gpus.WAIT_SECONDS = 1.0
    seen["never"] = outcome(9, 1, True)
    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
