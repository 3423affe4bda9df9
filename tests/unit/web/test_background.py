"""Work that outlives its request."""

from __future__ import annotations

import asyncio

from dataproc.web.background import Background


async def test_drain_waits_for_what_is_under_way() -> None:
    """A stop lets work finish that finishes in time."""
    background, go, done = Background(), asyncio.Event(), []

    async def work() -> None:
        await go.wait()
        done.append(1)

    background.spawn(work())
    asyncio.get_running_loop().call_soon(go.set)
    await background.drain(10)
    assert done == [1]
    assert len(background) == 0


async def test_drain_ends_what_does_not_finish() -> None:
    """A stop is bounded in time."""
    background = Background()
    task = background.spawn(asyncio.Event().wait())
    await background.drain(0.01)
    assert task.cancelled()


async def test_work_that_raises_is_logged_and_forgotten() -> None:
    """One failure neither stays nor stops the drain."""
    background = Background()

    async def fail() -> None:
        raise RuntimeError("on purpose")

    background.spawn(fail())
    await background.drain(10)
    assert len(background) == 0
