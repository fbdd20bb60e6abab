"""The room between requests to a service that limits them."""

from __future__ import annotations

import asyncio

import pytest

from airflow_ocean.c2d.errors import RateLimitedError
from airflow_ocean.c2d.services.pacing import Pace

SPACING = 0.05


async def taken(pace: Pace, turns: int) -> list[float]:
    """Take turns at once, and return when each came."""
    loop, moments = asyncio.get_running_loop(), list[float]()

    async def take() -> None:
        async with pace.turn():
            moments.append(loop.time())

    await asyncio.gather(*(take() for _ in range(turns)))
    return moments


def rooms(moments: list[float]) -> list[float]:
    return [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]


async def test_there_is_room_between_turns() -> None:
    assert min(rooms(await taken(Pace(SPACING), 4))) >= SPACING


async def test_who_is_cancelled_while_waiting_takes_no_turn() -> None:
    pace = Pace(3600.0)
    first = await taken(pace, 1)
    waiting = [asyncio.create_task(taken(pace, 1)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    # As much room as after one turn, and not after four.
    assert pace._next - first[0] < 2 * 3600.0


async def test_a_refusal_makes_more_room_and_success_takes_it_back() -> None:
    pace = Pace(SPACING)
    with pytest.raises(RateLimitedError):
        async with pace.turn():
            raise RateLimitedError("too many requests", retry_after=0.2)
    # Everybody else is told so, instead of waiting past a deadline.
    with pytest.raises(RateLimitedError, match="wants no request") as told:
        await taken(pace, 1)
    assert told.value.retry_after
    await asyncio.sleep(told.value.retry_after)
    first, *_, last = rooms(await taken(pace, 30))
    assert first > 1.5 * SPACING
    assert last < first


async def test_silence_holds_for_those_who_waited_already() -> None:
    pace, loop = Pace(SPACING), asyncio.get_running_loop()

    async def refused() -> None:
        async with pace.turn():
            await asyncio.sleep(SPACING / 2)
            raise RateLimitedError("too many requests", retry_after=0.5)

    first, waiting = asyncio.create_task(refused()), asyncio.create_task(taken(pace, 1))
    outcomes = await asyncio.gather(first, waiting, return_exceptions=True)
    assert all(isinstance(outcome, RateLimitedError) for outcome in outcomes)
    assert pace._quiet_until > loop.time() + SPACING
