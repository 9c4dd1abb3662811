"""The Ray that a job runs on: a running cluster, or a local one for this process alone."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openrlhf_cft.data.model_files import first_line
from openrlhf_cft.engine.platform import apply_environment
from openrlhf_cft.errors import InputError

logger = logging.getLogger(__name__)

START_ATTEMPTS = 10  # of a local Ray, five minutes in all: a busy machine only needs more time
START_SECONDS = 30.0  # Ray waits so long for its own node, then it raises a plain Exception
LISTENER_SECONDS = 10.0  # limit for a cluster to accept a connection
OBJECT_STORE_BYTES = 500_000_000  # of a local Ray; rows are small, and it counts against /dev/shm


@contextmanager
def connected(address: str | None, num_engines: int) -> Iterator[None]:
    """Connect to Ray for the block, as `connect` does, then restore this process, which may be a user's.

    Raises:
        InputError: Ray runs in this process already.
    """
    added = apply_environment()  # ray reads its variables when it is imported
    try:
        import ray
        import ray._private.worker as worker

        if ray.is_initialized():
            raise InputError("Ray runs in this process already: end it with ray.shutdown(), or start another process")
        original = worker.print_to_stdstream
        # Ray prints a traceback for every restart. The run itself gives the cause in one sentence at its end.
        worker.print_to_stdstream = lambda *_, **__: None
        try:
            connect(address, num_engines)
            yield
        finally:
            ray.shutdown()
            worker.print_to_stdstream = original
    finally:
        for name in added:
            os.environ.pop(name, None)


def connect(address: str | None, num_engines: int) -> None:
    """Join the cluster at `address` or RAY_ADDRESS, or start a local Ray for this process alone.

    Args:
        address: of a cluster; None for RAY_ADDRESS or, if that is not set, a local Ray.
        num_engines: number of actors that a local Ray must have CPUs for.

    Raises:
        InputError: there is no such cluster.
    """
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if names_cluster(address):
        try:
            require_listener(address or os.environ["RAY_ADDRESS"])
            ray.init(address=address or "auto", **options)
        except (OSError, OverflowError, RuntimeError, ValueError) as error:  # nobody listens; not an address
            shown = f"--ray.address: {address!r}" if address else f"RAY_ADDRESS: {os.environ['RAY_ADDRESS']!r}"
            raise InputError(f"{shown} is no cluster that can be joined: {first_line(error)}") from error
        return
    # Engines use the cores through their own threads, so Ray's logical CPUs only limit the number of actors and tasks.
    cpus = max(os.cpu_count() or 1, num_engines + 4)
    options |= {"include_dashboard": False, "num_cpus": cpus, "object_store_memory": OBJECT_STORE_BYTES}
    for attempt in range(1, START_ATTEMPTS + 1):
        started = time.monotonic()
        try:
            ray.init(address="local", **options)
            return
        except Exception as error:
            ray.shutdown()
            timed_out = type(error) is Exception and time.monotonic() - started >= START_SECONDS
            if attempt == START_ATTEMPTS or not timed_out:
                raise
            logger.warning("ray: %s; trying again", error)


def names_cluster(address: str | None) -> bool:
    """Whether a job joins a running cluster instead of starting a local Ray."""
    return bool(address or os.environ.get("RAY_ADDRESS"))


def require_listener(address: str) -> None:
    """Connect to `HOST:PORT` or `ray://HOST:PORT` once: Ray itself would try for minutes. Ray checks other addresses.

    Raises:
        OSError: nobody listens there.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), LISTENER_SECONDS).close()
