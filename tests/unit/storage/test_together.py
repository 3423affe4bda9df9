"""Steps of many at once, from the store's threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import pytest

from dataproc.errors import StorageUnavailable
from dataproc.storage.object_store.objects import CHUNK, Objects
from dataproc.storage.object_store.together import WIDTH, put_all


async def test_a_small_file_that_fails_keeps_large_ones_from_being_begun() -> None:
    """What cannot be kept as a whole costs the store no more than what was begun."""
    begun, let_go = list[int](), threading.Event()

    def large(number: int) -> None:
        begun.append(number)
        assert let_go.wait(10)

    def small() -> None:
        raise OSError

    objects = Objects("memory://together")
    try:
        works: list[tuple[int, Callable[[], None]]] = [
            (CHUNK + 1, partial(large, number)) for number in range(3 * WIDTH)
        ]
        putting = asyncio.ensure_future(put_all(objects, [*works, (1, small)]))
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > 3 or not begun:  # noqa: ASYNC110 - two wait for what is under way
                await asyncio.sleep(0)
        let_go.set()
        with pytest.raises(StorageUnavailable):
            await putting
        assert len(begun) <= WIDTH
    finally:
        let_go.set()
        objects.close()
