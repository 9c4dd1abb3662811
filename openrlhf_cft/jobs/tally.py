"""The state of a running job, kept by one Ray actor: counters, rows in flight, deaths of engines, rows set aside.

These rules make every job end:

- A row that was in flight `ALONE_AFTER` times when its engine died runs alone from then on. After `ASIDE_AFTER` such
  deaths it is set aside: this row kills the engine, and the other rows can finish.
- A row that is set aside, or that failed, is left for the next run.
- The job ends with the cause if no engine starts at all. It also ends if no row is finished while engines die
  `DEATHS_PER_ENGINE` times each, `ASIDES` rows are set aside, or `FAILURES` rows fail.
"""

from __future__ import annotations

from dataclasses import dataclass

from openrlhf_cft.errors import Failure

ALONE_AFTER = 2
ASIDE_AFTER = 4
DEATHS_PER_ENGINE = 6  # more than ASIDE_AFTER, so that one row that kills engines does not end the job
ASIDES = 3
FAILURES = 100
KILLED = "its process was killed, often for lack of memory"


@dataclass(frozen=True)
class Leave:
    """The permission that an actor gets for a row."""

    alone: bool = False  # no other row may be in flight on the engine
    aside: bool = False  # the row is skipped
    stop: str | None = None  # the job ends, for this reason


class Tally:
    """Counters of this run, and the reports of the actors. If its process dies, they are lost and start from zero."""

    def __init__(self, engines: int) -> None:
        self.counts: dict[str, float] = {}
        self.failures: dict[str, Failure] = {}  # by row id
        self.open: set[str] = set()  # actors with an engine
        self._limit = DEATHS_PER_ENGINE * engines
        self._in_flight: dict[str, set[str]] = {}  # row ids by actor
        self._strikes: dict[str, list[str]] = {}  # by row id: why the engine died each time
        self._causes: dict[str, str] = {}  # by actor: why its engine is about to be ended
        self._aside: set[str] = set()  # row ids; their blocks come again if another row of the block kills the engine
        self._deaths = 0  # since a row was last finished or set aside
        self._failed = self._asides = 0  # since a row was last finished
        self._stop: str | None = None
        self._known: set[str] = set()  # actors that have been started
        self._was_ready = False  # whether an engine has ever been ready
        self._log = ""  # of the last engine that failed
        self._last = ""

    def start(self, actor: str) -> str | None:
        """An actor's process begins: its first one, or a replacement for one that died.

        Returns:
            Why the job has to end; None if it continues.
        """
        if actor in self._known:
            self._died(actor)
        self._known.add(actor)
        self.open.discard(actor)
        return self.reason()

    def stop(self, reason: str) -> None:
        """The job has to end."""
        self._stop = self._stop or reason

    def refused(self, actor: str, cause: str, log: str = "") -> None:
        """The engine of an actor did not start; its process will end. If others have started, the start is retried."""
        self.dying(actor, cause, log)
        if not self._was_ready:
            self.stop(f"an engine does not start: {cause}")

    def ready(self, actor: str) -> None:
        """The engine of an actor is up."""
        self._was_ready = True
        self.open.add(actor)

    def closed(self, actor: str) -> None:
        """The engine of an actor has ended as it should."""
        self.open.discard(actor)

    def dying(self, actor: str, cause: str, log: str = "") -> None:
        """The engine of an actor is broken; its process will end. `log` is what the engine wrote."""
        self._causes[actor] = cause
        self._log = log or self._log

    def engine_log(self) -> str:
        """The output of the last engine that failed; empty if none failed, or none had written anything."""
        return self._log

    def ask(self, row_id: str) -> Leave:
        """Whether a row may be done, and how."""
        reason = self.reason()
        strikes = self._strikes.get(row_id, [])
        if reason is not None:
            return Leave(stop=reason)
        if row_id in self._aside:
            return Leave(aside=True)
        if len(strikes) >= ASIDE_AFTER:
            self._deaths = 0
            self._asides += 1
            self._aside.add(row_id)
            times = f"the engine died {len(strikes)} times on it"
            self.failures[row_id] = Failure(row_id, f"skipped, {times}; last cause: {strikes[-1]}")
            return Leave(aside=True)
        return Leave(alone=len(strikes) >= ALONE_AFTER)

    def begin(self, actor: str, row_id: str) -> None:
        """A row is on the engine from now on. So the engine is up, even if this tally restarted after `ready`."""
        self.open.add(actor)
        self._in_flight.setdefault(actor, set()).add(row_id)

    def finish(self, actor: str, row_id: str, counts: dict[str, float]) -> None:
        """A row is finished."""
        self._in_flight.get(actor, set()).discard(row_id)
        self._strikes.pop(row_id, None)
        self.failures.pop(row_id, None)
        self._deaths = self._failed = self._asides = 0
        for name, value in counts.items():
            self.counts[name] = self.counts.get(name, 0) + value

    def fail(self, actor: str, row_id: str, error: str, traceback: str = "") -> None:
        """A row could not be finished, though the engine lives."""
        self._in_flight.get(actor, set()).discard(row_id)
        self.failures[row_id] = Failure(row_id, error, traceback)
        self._last = error
        self._failed += 1

    def read(self) -> tuple[dict[str, float], int, list[Failure]]:
        """The counters, the number of engines that are up, and the rows that were left out, with the reasons."""
        return self.counts, len(self.open), list(self.failures.values())

    def _died(self, actor: str) -> None:
        self._deaths += 1
        self.counts["deaths"] = self.counts.get("deaths", 0) + 1
        self._last = self._causes.pop(actor, KILLED)
        for row_id in self._in_flight.pop(actor, set()):
            self._strikes.setdefault(row_id, []).append(self._last)

    def reason(self) -> str | None:
        """Why the job has to end; None if it continues."""
        if self._stop is None and self._asides >= ASIDES:
            self._stop = f"{self._asides} consecutive rows killed the engine; last cause: {self._last}"
        if self._stop is not None:
            return self._stop
        if self._deaths >= self._limit:
            return f"engines died {self._deaths} times without finishing a row; last cause: {self._last}"
        if self._failed >= FAILURES:
            return f"{self._failed} consecutive rows failed; last error: {self._last}"
        return None
