"""Counts, in the background, sessions of which nobody noted what they take: an older release's, a killed server's."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable

import structlog

from dataproc.errors import DataprocError
from dataproc.storage.folders import Tree
from dataproc.storage.usage import inotify
from dataproc.storage.usage.usages import Usages
from dataproc.storage.usage.watch import Watch
from dataproc.types import Usage

AT_ONCE = 100  # sessions noted together
REST = 3.0  # times as long as a count took, until the next one begins

_log = structlog.get_logger("dataproc.storage")


class _Unwatched(inotify.Inotify):
    """A queue that no directory is put to, so that a look walks, and leaves no watch behind."""

    def __init__(self) -> None:
        """Nothing is opened."""
        self._fd = -1

    def add(self, folder: int) -> int:
        raise OSError(errno.ENOSPC, "not watched")

    def remove(self, watch: int) -> None:
        """Nothing was added."""


def walked(tree: Tree) -> Usage:
    """What a session takes, by one walk through its folders; without any, nothing. Blocks. Raises OSError."""
    watch = Watch(tree, _Unwatched(), {})
    watch.look()
    return watch.usage


async def count_missing(usages: Usages, measure: Callable[[str], Awaitable[Usage]]) -> None:
    """Count each of them once, a quarter of the time at most. What cannot be counted now is left to the next start."""
    after, counted = "", 0
    try:
        while sessions := await usages.missing(after, AT_ONCE):
            found = await _measured(sessions, measure)
            await usages.add(found)
            after, counted = sessions[-1], counted + len(found)
    except DataprocError as error:
        _log.warning("storage.sessions_not_counted", reason=error.message)
    if counted:
        _log.info("storage.sessions_counted", sessions=counted)


async def _measured(sessions: list[str], measure: Callable[[str], Awaitable[Usage]]) -> dict[str, Usage]:
    found: dict[str, Usage] = {}
    for session in sessions:
        begun = time.monotonic()
        try:
            found[session] = await measure(session)
        except DataprocError as error:
            _log.warning("storage.session_not_counted", session_id=session, reason=error.message)
        await asyncio.sleep(REST * (time.monotonic() - begun))
    return found
