"""A real Ray cluster of two nodes on this machine, and one command submitted to it; the second node is killed midway.

    python cluster_script.py OUTPUT_DIR GO COMMAND...   run by `test_cluster.py` in a network and process namespace

OUTPUT_DIR is that of the command, an annotation, whose verifier waits for the file GO: it is written once there is an
engine on each node. The last line is JSON: what was seen meanwhile.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
from engine_processes import engines, line_of

HEAD, SECOND = "127.0.0.1", "127.0.0.2"
# Ray spreads all actors and tasks over the nodes, so that two engines may meet on one. And a driver that its node's
# agent does not answer for half a minute, as on a very busy machine, exports no metrics as long as it lives.
TRIES = 5
NO_METRICS = "Metrics will not be exported"
# For the metric to come once both engines are up. Where memory is short, Ray kills the actor that counts them. A new
# one hears of an engine with its next row, which here waits for the metric.
METRIC_SECONDS = 300.0
ENGINES = "ray_openrlhf_cft_engines"
NODE = ["--num-cpus=6", "--object-store-memory=200000000"]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at: without a namespace, another Ray of this machine has the usual ones."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("", 0))
        return [opened.getsockname()[1] for opened in sockets]


PORT, DASHBOARD, *AGENTS = free_ports(4)
JOBS = f"http://{HEAD}:{DASHBOARD}"


def ray(*arguments: str) -> None:
    done = subprocess.run(["ray", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"ray {' '.join(arguments)}:\n{done.stdout}")


def start_node(*arguments: str) -> None:
    """`ray start`, which gives up if the node is not registered after 30 s, as on a very busy machine."""
    for number in range(TRIES):
        before = {process.pid for process in psutil.process_iter()}
        try:
            return ray("start", *arguments)
        except SystemExit:
            if number == TRIES - 1:
                raise
        kill([p for p in psutil.process_iter() if p.pid not in before and of_this_session(p)])


def of_this_session(process: psutil.Process) -> bool:
    try:
        return os.getsid(process.pid) == os.getsid(0)
    except OSError:
        return False


def members(node: str) -> list[psutil.Process]:
    """The raylet of a node and all that it started."""
    mark = f"--node_ip_address={node}"
    raylets = [p for p in psutil.process_iter() if "raylet/raylet " in line_of(p) and mark in line_of(p)]
    return [process for raylet in raylets for process in [raylet, *raylet.children(recursive=True)]]


def engines_of(node: str) -> int:
    return len(engines(members(node)))


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def show_state(folder: str) -> None:
    """Print every process here, and the ends of Ray's logs, which go with the folder."""
    for process in psutil.process_iter():
        print("cluster:", process.pid, line_of(process)[:100])
    for log in sorted(Path(folder, "session_latest", "logs").glob("*")):
        if log.is_file() and log.stat().st_size:
            print(f"cluster: {log.name}", *log.read_text(errors="replace").splitlines()[-20:], sep="\n  ", flush=True)


def checkpoints(output_dir: Path) -> int:
    files = (output_dir / ".annotate" / "checkpoint").glob("*.parquet")
    return sum("pending" not in file.name for file in files)


def wait_for(what: str, condition: Any, job: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 900
    while not condition():
        if (job is not None and job.poll() is not None) or time.monotonic() > deadline:
            raise SystemExit(f"cluster: no {what}")
        time.sleep(0.2)


def cluster_of_two() -> tuple[str, str, int]:
    """The addresses of the head and of the second node as Ray has them, and the port of the head's metrics.

    Where the machine has another address, Ray takes that for 127.0.0.1.
    """
    import ray

    ray.init(address=f"{HEAD}:{PORT}", log_to_driver=False, logging_level="ERROR")
    nodes: list[dict[str, Any]] = []

    def two() -> bool:  # a node that has been killed is alive until Ray misses it
        nodes[:] = [node for node in ray.nodes() if node["Alive"]]
        return len(nodes) == 2

    wait_for("cluster of two nodes", two)
    nodes.sort(key=lambda node: "node:__internal_head__" not in node["Resources"])
    ray.shutdown()
    head, second = (str(node["NodeManagerAddress"]) for node in nodes)
    return head, second, int(nodes[0]["MetricsExportPort"])


def page(address: str) -> str:
    """What is served there; nothing while it does not come whole: it shares two cores with two engines and others."""
    try:
        with urllib.request.urlopen(address) as found:
            return str(found.read().decode())
    except (OSError, http.client.HTTPException):
        return ""


def metrics(port: int) -> dict[str, float]:
    """Ours, as Prometheus would find them."""
    lines = page(f"http://{HEAD}:{port}/metrics").splitlines()
    ours = (line for line in lines if line.startswith("ray_openrlhf_cft_"))
    return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in ours}


def without_metrics(folder: str) -> int:
    """How many drivers have given up exporting metrics, by their logs."""
    logs = Path(folder, "session_latest", "logs").glob("python-core-driver-*.log")
    return sum(NO_METRICS in log.read_text(errors="replace") for log in logs)


def main() -> None:
    socket.setdefaulttimeout(10)  # of `metrics`, which is asked again and again
    # Workers are nice by default: beside other tests, they would hardly start.
    os.environ |= {"RAY_worker_niceness": "0"}
    os.environ |= {"RAY_DISABLE_USAGE_STATS": "1", "RAY_metrics_report_interval_ms": "1000"}
    # Before Ray 2.57, asking for metrics while another is added can stop a node's agent for good (its PR 64946).
    os.environ |= {"RAY_enable_open_telemetry": "0"}
    # On a busy machine the first answer of Ray's store takes longer than its 60 s, and `ray start` gives up.
    os.environ |= {"RAY_gcs_server_request_timeout_seconds": "800"}
    # On a busy machine a part of the dashboard takes longer than Ray's 30 s, and then there is none.
    os.environ |= {"RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "800"}
    # Not Ray's usual folder: there it notes the address of this cluster, for every later `ray.init()` on the machine.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        try:
            run(folder, Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
        except SystemExit:
            show_state(folder)
            raise


def run(folder: str, output_dir: Path, go: Path, command: list[str]) -> None:
    ports = [f"--port={PORT}", f"--dashboard-port={DASHBOARD}"]
    agents = [f"--dashboard-agent-listen-port={port}" for port in AGENTS]
    start_node("--head", f"--node-ip-address={HEAD}", *ports, agents[0], f"--temp-dir={folder}", *NODE)
    start_node(f"--address={HEAD}:{PORT}", f"--node-ip-address={SECOND}", agents[1], *NODE)
    addresses = cluster_of_two()
    # `ray start` waits for neither.
    wait_for("dashboard", lambda: page(f"{JOBS}/api/version"))
    wait_for("metrics of the head", lambda: page(f"http://{HEAD}:{addresses[2]}/metrics"))
    for number in range(TRIES):
        if spread_and_killed(f"try-{number}", folder, *addresses, output_dir, go, command):
            return
    raise SystemExit(f"cluster: both engines on one node, or no metrics, {TRIES} times")


def spread_and_killed(
    name: str, folder: str, head: str, second: str, port: int, output_dir: Path, go: Path, command: list[str]
) -> bool:
    """Submit the command, and kill the second node while an engine works on each.

    False where Ray has put both on one, or has no metrics of the command: then it is stopped, and goes on when it is
    submitted again.
    """
    silent = without_metrics(folder)
    submit = ["ray", "job", "submit", f"--address={JOBS}", f"--submission-id={name}", "--", *command]
    job = subprocess.Popen(submit, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output: list[str] = []
    assert job.stdout is not None
    reader = threading.Thread(target=output.extend, args=(job.stdout,))
    reader.start()
    try:
        wait_for("two engines", lambda: engines_of(head) + engines_of(second) == 2, job)
        seen: dict[str, Any] = {}
        late = time.monotonic() + METRIC_SECONDS

        def at_work() -> bool:
            seen.update(metrics(port))
            return seen.get(ENGINES) == 2 or without_metrics(folder) > silent or time.monotonic() > late

        if engines_of(head) == 1:
            wait_for("two engines at work", at_work, job)
        if seen.get(ENGINES) != 2:
            ray("job", "stop", f"--address={JOBS}", name)
            wait_for("end of the engines", lambda: engines_of(head) + engines_of(second) == 0)
            return False
        go.touch()
        wait_for("row", lambda: checkpoints(output_dir), job)
        seen["checkpoints"] = checkpoints(output_dir)
        node = members(second)
        seen["engines_killed"] = len(engines(node))
        kill(node)
    finally:
        if sys.exc_info()[0] is not None:
            job.kill()
        job.wait()
        reader.join()
        print("".join(output))
    print(json.dumps({**seen, "code": job.returncode}))
    return True


if __name__ == "__main__":
    main()
