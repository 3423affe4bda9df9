"""Many blocking steps at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import TypeVar

from dataproc.storage.paths import unavailable

T = TypeVar("T")
WIDTH = 16  # steps of one caller that are under way; others come in between


async def together(threads: Executor, works: Iterable[Callable[[], T]]) -> list[T]:
    """What the works return, in no order. After the first that fails no more are begun, and its error is raised.

    Returns or raises only when none is at work any more. OSError becomes StorageUnavailable.
    """
    loop = asyncio.get_running_loop()
    todo, results, errors = iter(works), list[T](), list[Exception]()

    async def work_off() -> None:
        for work in todo:
            if errors:
                return
            try:
                results.append(await loop.run_in_executor(threads, work))
            except Exception as error:
                errors.append(error)

    await asyncio.gather(*(work_off() for _ in range(WIDTH)))
    if errors:
        raise unavailable(errors[0]) if isinstance(errors[0], OSError) else errors[0]
    return results
