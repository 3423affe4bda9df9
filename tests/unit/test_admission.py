"""Who runs, who waits, and in which order."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dataproc.admission import Admission, Place
from dataproc.errors import Overloaded
from tests.factories import a_settings


def an_admission(**chosen: Any) -> Admission:
    small = {"concurrent_runs": 1, "queue_limit": 8, "queue_share": 1}
    return Admission(a_settings(Path("/nowhere"), **{**small, **chosen}))


async def given(admission: Admission, *places: Place) -> list[Place]:
    """Those of the places that have their slots by now."""
    await asyncio.sleep(0)
    return [place for place in places if admission.position(place) is None]


async def test_keys_take_turns() -> None:
    """A key with many calls does not hold up another with one; positions say so."""
    admission = an_admission()
    running = admission.enter("a", "s")
    many = [admission.enter("a", "s") for _ in range(2)]
    one = admission.enter("b", "t")
    assert [admission.position(place) for place in (running, *many, one)] == [None, 1, 3, 2]
    for expected in (many[0], one, many[1]):
        admission.leave(running, None)
        assert admission.position(expected) is None
        running = expected


async def test_the_queue_is_bounded() -> None:
    """In all, and for each key; what was promised a place gets one anyway."""
    admission = an_admission(queue_limit=4, queue_share=0.5)
    admission.enter("a", "s")
    admission.enter("a", "s")
    admission.enter("a", "s")
    with pytest.raises(Overloaded) as full:
        admission.enter("a", "s")
    assert full.value.data["limit"] == 2
    admission.enter("b", "t")
    admission.enter("b", "t")
    with pytest.raises(Overloaded) as full:
        admission.refuse_if_full("c")
    assert (full.value.data["limit"], full.value.data["used"]) == (4, 4)
    assert full.value.data["retry_after"] >= 1
    assert admission.position(admission.enter("c", "u", promised=True)) is not None


async def test_bounds_of_keys_and_sessions_leave_slots_to_others() -> None:
    """A key or session at its bound waits while others run, also those that come later."""
    admission = an_admission(concurrent_runs=3, concurrent_runs_per_key=2, concurrent_runs_per_session=1)
    first, waits = admission.enter("a", "s"), admission.enter("a", "s")
    second, third = admission.enter("a", "t"), admission.enter("b", "u")
    assert await given(admission, first, waits, second, third) == [first, second, third]
    admission.leave(third, None)
    assert admission.position(waits) == 1
    admission.leave(first, None)
    assert await admission.wait(waits)


async def test_runs_that_are_to_be_alone() -> None:
    """One at a time in a session, without holding up that session's other runs, nor other sessions."""
    admission = an_admission(concurrent_runs=4)
    alone, next_one = (admission.enter("a", "s", alone=True) for _ in range(2))
    beside, elsewhere = admission.enter("a", "s"), admission.enter("a", "t", alone=True)
    assert await given(admission, alone, next_one, beside, elsewhere) == [alone, beside, elsewhere]
    admission.leave(alone, None)
    assert await admission.wait(next_one)


async def test_who_leaves_the_line_is_forgotten() -> None:
    """A place that is given up, or whose caller is cancelled, is nobody's."""
    admission = an_admission()
    running, gives_up, cancelled, last = (admission.enter("a", "s") for _ in range(4))
    waiting = asyncio.ensure_future(admission.wait(gives_up))
    going = asyncio.ensure_future(admission.wait(cancelled))
    await asyncio.sleep(0)
    admission.give_up(gives_up)
    going.cancel()
    assert await waiting is False
    with pytest.raises(asyncio.CancelledError):
        await going
    assert (admission.waiting, admission.position(last)) == (1, 1)
    admission.leave(running, 1.0)
    assert await admission.wait(last)
    assert (admission.running, admission.waiting) == (1, 0)


async def test_a_slot_for_nobody_goes_on() -> None:
    """A slot that was given in the same moment as its caller was cancelled is given to the next."""
    admission = an_admission()
    running, first, second = (admission.enter("a", "s") for _ in range(3))
    going = asyncio.ensure_future(admission.wait(first))
    await asyncio.sleep(0)
    admission.leave(running, None)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert await admission.wait(second)
    assert admission.running == 1
