"""The rules by which a job ends whatever happens, on the tally alone; through Ray they are in `test_faults.py`."""

from __future__ import annotations

from openrlhf_cft.errors import Failure
from openrlhf_cft.jobs.tally import (
    ALONE_AFTER,
    ASIDE_AFTER,
    ASIDES,
    DEATHS_PER_ENGINE,
    FAILURES,
    KILLED,
    Leave,
    Tally,
)


def die(tally: Tally, *rows: str, actor: str = "a", cause: str | None = None) -> str | None:
    """An engine dies with these rows in flight, and comes back; why the job must end."""
    for row in rows:
        tally.begin(actor, row)
    if cause:
        tally.dying(actor, cause)
    return tally.start(actor)


def test_a_row_that_kills_runs_alone_and_is_then_set_aside() -> None:
    tally = Tally(engines=1)
    tally.start("a")
    for deaths in range(1, ASIDE_AFTER + 1):
        beside = ["innocent"] if deaths <= ALONE_AFTER else []
        assert die(tally, "poison", *beside, cause=f"death {deaths}") is None
        if deaths < ASIDE_AFTER:
            assert tally.ask("poison") == Leave(alone=deaths >= ALONE_AFTER)
    assert tally.ask("innocent") == Leave(alone=True), "it was there twice, so it might have been the one"
    assert tally.ask("poison") == Leave(aside=True)
    tally.finish("a", "innocent", {"rows": 1})
    counts, _, failures = tally.read()
    assert counts["rows"] == 1
    assert [failure[:2] for failure in failures] == [
        ("poison", f"skipped, the engine died 4 times on it; last cause: death {ASIDE_AFTER}")
    ]


def test_a_row_is_set_aside_for_its_own_deaths() -> None:
    """On two engines: the last death of all may be another row's."""
    tally = Tally(engines=2)
    for actor in ("a", "b"):
        tally.start(actor)
    for _ in range(ASIDE_AFTER):
        die(tally, "first", actor="a")
    die(tally, "second", actor="b", cause="broken by the second")
    assert tally.ask("first") == Leave(aside=True)
    assert tally.read()[2] == [Failure("first", f"skipped, the engine died 4 times on it; last cause: {KILLED}")]


def test_two_rows_of_a_block_that_kill_are_both_set_aside() -> None:
    """The block comes again after each death, with all of its rows."""
    tally, deaths = Tally(engines=1), 0
    tally.start("a")
    while True:
        leaves = {row: tally.ask(row) for row in ("first", "second", "innocent")}
        assert all(leave.stop is None for leave in leaves.values()) and deaths <= 2 * ASIDE_AFTER
        left = [row for row, leave in leaves.items() if row != "innocent" and not leave.aside]
        if not left:
            break
        tally.finish("a", "innocent", {"rows": 1})
        die(tally, left[0])
        deaths += 1
    assert {failure.id for failure in tally.read()[2]} == {"first", "second"}


def test_an_engine_that_does_not_start_again_is_tried_again() -> None:
    tally = Tally(engines=1)
    tally.start("a")
    tally.ready("a")
    die(tally, "row")
    tally.refused("a", "no memory yet")
    assert tally.start("a") is None
    for _ in range(DEATHS_PER_ENGINE):
        tally.refused("a", "no memory yet")
        reason = tally.start("a")
    assert reason == "engines died 8 times without finishing a row; last cause: no memory yet"


def test_a_tally_that_is_started_anew_learns_which_engines_are_up() -> None:
    """Its process may die, and engines that are up do not say so again."""
    tally = Tally(engines=2)
    tally.begin("a", "row 1")
    tally.begin("b", "row 2")
    tally.finish("b", "row 2", {"rows": 1})
    assert tally.read()[1] == 2
    tally.closed("b")
    assert tally.read()[1] == 1


def test_no_engine_starts() -> None:
    tally = Tally(engines=2)
    tally.start("a")
    tally.refused("a", "no device")
    assert tally.start("b") == "an engine does not start: no device"


def test_a_finished_row_is_suspected_no_more() -> None:
    tally = Tally(engines=1)
    tally.start("a")
    for _ in range(ALONE_AFTER):
        die(tally, "row")
    tally.finish("a", "row", {})
    assert tally.ask("row") == Leave()


def test_engines_that_die_without_finishing_a_row_end_the_job_with_the_cause() -> None:
    tally = Tally(engines=2)
    actors = ["a", "b"]
    for actor in actors:
        assert tally.start(actor) is None
    reasons = [die(tally, f"row{n}", actor=actors[n % 2], cause="no GPU") for n in range(2 * DEATHS_PER_ENGINE)]
    assert reasons[:-1] == [None] * (2 * DEATHS_PER_ENGINE - 1)
    assert reasons[-1] == "engines died 12 times without finishing a row; last cause: no GPU"
    assert tally.ask("other").stop == reasons[-1]


def test_deaths_between_finished_rows_end_no_job() -> None:
    tally = Tally(engines=1)
    tally.start("a")
    for n in range(10 * DEATHS_PER_ENGINE):  # a week on preemptible machines
        assert die(tally, f"row{n}") is None
        tally.finish("a", f"row{n}", {"rows": 1})
    assert tally.read()[0]["deaths"] == 10 * DEATHS_PER_ENGINE


def test_one_poisoned_row_after_another_ends_the_job() -> None:
    tally = Tally(engines=1)
    tally.start("a")
    for n in range(ASIDES):
        assert tally.ask("next").stop is None
        for _ in range(ASIDE_AFTER):
            die(tally, f"poison{n}")
        assert tally.ask(f"poison{n}").aside
    assert tally.ask("next").stop == f"3 consecutive rows killed the engine; last cause: {KILLED}"


def test_rows_that_only_fail_end_the_job() -> None:
    tally = Tally(engines=1)
    for n in range(FAILURES):
        assert tally.ask("next").stop is None
        tally.fail("a", f"row{n}", "no disk")
    assert tally.ask("next").stop == f"{FAILURES} consecutive rows failed; last error: no disk"


def test_the_first_reason_stays() -> None:
    tally = Tally(engines=1)
    tally.stop("first")
    tally.stop("second")
    assert tally.start("a") == tally.reason() == "first"


def test_engines_that_are_up() -> None:
    tally = Tally(engines=2)
    for actor in ("a", "b"):
        tally.start(actor)
        tally.ready(actor)
    assert tally.read()[1] == 2
    die(tally, actor="a")
    assert tally.read()[1] == 1
    tally.closed("b")
    assert tally.read()[1] == 0
