"""The progress of a running job: one line that is updated, and the same figures as Ray metrics, beside its dashboard.

Metrics are gauges, named `openrlhf_cft_NAME` in Ray and `ray_openrlhf_cft_NAME` where Prometheus scrapes them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from openrlhf_cft.progress import LiveLine

if TYPE_CHECKING:
    import ray.actor

PROGRESS_SECONDS, LIVE_SECONDS = 10.0, 2.0  # between two readings; the second one applies in a terminal
GAUGES = {
    "rows": "rows done by this run",
    "rows_left": "rows of this run that are not done",
    "positions": "response tokens whose counterfactuals are done",
    "critical_share": "critical tokens of all positions",
    "rollouts": "counterfactuals that were verified",
    "rollouts_per_second": "over this run",
    "decoded_tokens": "tokens that engines generated",
    "decoded_tokens_per_second": "over this run",
    "eta_seconds": "until the last row, at the pace of this run",
    "engines": "engines that are up",
    "engine_deaths": "engines that died in this run",
}


class JobProgress:
    """Shows and publishes the tally's counters while a job runs (a context manager).

    Args:
        tally: the actor that counts.
        report: turns counters and seconds into the line that is shown.
        total: number of rows that this run has to do.
    """

    def __init__(
        self, tally: ray.actor.ActorHandle, report: Callable[[dict[str, float], float], str], total: int
    ) -> None:
        from ray.util.metrics import Gauge

        self._tally, self._report, self._total = tally, report, total
        self._gauges = {name: Gauge(f"openrlhf_cft_{name}", text) for name, text in GAUGES.items()}
        self._line = LiveLine(at_once=True)
        self._started: float | None = None  # when the first engine was up; rates count from then on
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> JobProgress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._line.close()

    def _watch(self) -> None:
        import ray

        pause = LIVE_SECONDS if self._line.live else PROGRESS_SECONDS
        while not self._done.wait(pause):
            try:
                counts, engines, _ = ray.get(self._tally.read.remote(), timeout=5)
                if not counts and not engines:
                    self._line.show("engines are starting")
                    continue
                self._started = self._started or time.monotonic() - pause
                seconds = time.monotonic() - self._started
                for name, value in measures(counts, engines, seconds, self._total).items():
                    self._gauges[name].set(value)
                self._line.show(self._report(counts, seconds))
            except (ray.exceptions.RayError, TimeoutError, OSError):
                continue  # progress only informs: a late or lost reading, or a full disk, must not end it


def measures(counts: dict[str, float], engines: int, seconds: float, total: int) -> dict[str, float]:
    """The values of `GAUGES` that are known so far.

    Args:
        counts: sums over the rows that are done.
        engines: number of engines that are up.
        seconds: time since the first engine was up.
        total: number of rows that this run has to do.
    """
    rows, positions = counts.get("rows", 0), counts.get("positions", 0)
    values: dict[str, float] = {"rows": rows, "rows_left": total - rows, "engines": engines}
    values["engine_deaths"] = counts.get("deaths", 0)
    for name in ("positions", "rollouts", "decoded_tokens"):
        values[name] = counts.get(name, 0)
    for name in ("rollouts", "decoded_tokens"):
        values[f"{name}_per_second"] = values[name] / seconds
    if positions:
        values["critical_share"] = counts.get("critical", 0) / positions
    if rows:
        values["eta_seconds"] = seconds / rows * (total - rows)
    return values


def line(counts: dict[str, float], seconds: float, total: int, detail: str) -> str:
    """A progress line: `12/400 rows, DETAIL, 380 tokens/s, ETA 90 s`, and how often engines died."""
    now = measures(counts, 0, seconds, total)
    eta = f"{now['eta_seconds']:.0f} s" if "eta_seconds" in now else "?"
    text = f"{now['rows']:.0f}/{total} rows, {detail}, {now['decoded_tokens_per_second']:.0f} tokens/s, ETA {eta}"
    deaths = now["engine_deaths"]
    return f"{text}, engines died {deaths:.0f} times" if deaths else text


def annotation_line(counts: dict[str, float], seconds: float, total: int) -> str:
    """The progress line of annotation."""
    now: dict[str, Any] = measures(counts, 0, seconds, total)
    share = f"{now['critical_share']:.1%} critical" if "critical_share" in now else "none critical yet"
    annotated = f"{counts.get('annotated', 0):.0f} annotated, {now['positions']:.0f} positions"
    return line(counts, seconds, total, f"{annotated}, {share}, {now['rollouts_per_second']:.1f} rollouts/s")
