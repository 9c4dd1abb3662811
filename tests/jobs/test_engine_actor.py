"""Which rows use an engine at the same time, without Ray and without an engine."""

from __future__ import annotations

import asyncio

import pytest

from openrlhf_cft.jobs.engine_actor import EngineActor


@pytest.mark.parametrize("limit", [1, 3, 10, 64])
def test_no_more_rows_at_a_time_than_asked_for(limit: int) -> None:
    """Ray Data starts whole blocks of them. Row 20 wants the engine for itself."""
    actor = object.__new__(EngineActor)
    actor.rows_in_flight, actor.in_flight, actor.lonely = limit, 0, False
    at_once: list[set[int]] = []
    working: set[int] = set()

    async def row(number: int) -> None:
        async with actor._admitted(alone=number == 20):
            working.add(number)
            at_once.append(set(working))
            await asyncio.sleep(0.001)
            working.remove(number)

    async def all_rows() -> None:
        actor.change = asyncio.Condition()
        await asyncio.wait_for(asyncio.gather(*map(row, range(40))), 300)

    asyncio.run(all_rows())
    assert len(at_once) == 40 and max(map(len, at_once)) == min(limit, 20), "20 rows come before the one that waits"
    assert all(rows == {20} for rows in at_once if 20 in rows)
