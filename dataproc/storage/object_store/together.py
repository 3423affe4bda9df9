"""Blocking steps in threads of their own, one or many at once: a store that hangs holds up nobody's disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import TypeVar

from dataproc.storage.object_store.objects import CHUNK, Objects
from dataproc.storage.paths import unavailable

T = TypeVar("T")
WIDTH = 16  # steps of one caller that are under way; others come in between


async def alone(threads: Executor, work: Callable[..., T], *args: object) -> T:
    """What one step returns. OSError becomes StorageUnavailable."""
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work, *args)
    except OSError as error:
        raise unavailable(error) from error


async def together(threads: Executor, works: Iterable[Callable[[], T]]) -> list[T]:
    """What the works return, in no order. After the first that fails no more are begun, and its error is raised.

    Returns or raises only when none is at work any more, also if it is cancelled. OSError becomes StorageUnavailable.
    """
    loop = asyncio.get_running_loop()
    todo, results, errors = iter(works), list[T](), list[Exception]()
    under_way: set[asyncio.Future[T]] = set()

    def ended(step: asyncio.Future[T]) -> None:
        under_way.discard(step)
        if not step.cancelled():
            step.exception()  # after a cancellation nobody asks for it

    async def work_off() -> None:
        for work in todo:
            if errors:
                return
            step = loop.run_in_executor(threads, work)
            under_way.add(step)
            step.add_done_callback(ended)
            try:
                results.append(await asyncio.shield(step))
            except Exception as error:
                errors.append(error)

    try:
        await asyncio.gather(*(work_off() for _ in range(WIDTH)))
    finally:
        if under_way:  # cancelled: a thread cannot be, and what it does must not come after what the caller does next
            await asyncio.wait(set(under_way))
    if errors:
        raise unavailable(errors[0]) if isinstance(errors[0], OSError) else errors[0]
    return results


async def put_all(objects: Objects, works: Iterable[tuple[int, Callable[[], T]]]) -> list[T]:
    """The same for works that put so many bytes: large ones hold up only each other, whosever they are."""
    small, large = list[Callable[[], T]](), list[Callable[[], T]]()
    for size, work in works:
        (large if size > CHUNK else small).append(work)
    if not large:
        return await together(objects.threads, small)
    try:
        async with asyncio.TaskGroup() as group:  # one that fails keeps the other from beginning more
            parts = [group.create_task(together(*each)) for each in ((objects.threads, small), (objects.large, large))]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [each for part in parts for each in part.result()]
