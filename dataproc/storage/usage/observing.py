"""A run, or an upload, in a session whose use is watched."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from types import TracebackType
from typing import Self

from dataproc.errors import QuotaExceeded
from dataproc.storage.changes import Changes
from dataproc.storage.usage.limits import Watched
from dataproc.storage.usage.quotas import Quotas
from dataproc.storage.usage.watch import Watch
from dataproc.types import Usage


class Room:
    """What an upload takes before it has its name, for `async with`."""

    def __init__(self, quotas: Quotas, watched: Watched, replaced: int, missing: int) -> None:
        """replaced: the bytes of the file in whose place it comes. missing: names that have to be made for it."""
        self._quotas, self._watched, self._replaced, self._missing = quotas, watched, replaced, missing
        self._key, self._taken = watched.key, 0

    def require(self, announced: int) -> None:
        """Raises QuotaExceeded where that many bytes would not fit."""
        self._quotas.require_room(self._watched, Usage(announced - self._replaced, self._missing))

    async def kept(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """The chunks, as far as they fit. Raises QuotaExceeded."""
        async for chunk in chunks:
            self._taken += len(chunk)
            self._quotas.reserve(self._watched, self._key, len(chunk))
            self._quotas.require_room(self._watched, Usage(-self._replaced, 0))
            yield chunk

    async def __aenter__(self) -> Self:
        self._quotas.enter(self._watched)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._quotas.counted(self._watched)  # before the room is given back, or others would take it
        finally:
            self._quotas.reserve(self._watched, self._key, -self._taken)
            self._quotas.leave(self._watched)


class Observed:
    """A run in a session, for `async with`: what it changes, and whether it takes too much."""

    __slots__ = ("_mark", "_quotas", "_told", "_watched")

    def __init__(self, quotas: Quotas, watched: Watched) -> None:
        self._quotas, self._watched = quotas, watched
        self._mark: int | None = None

    async def __aenter__(self) -> Self:
        self._mark = await self._quotas.settled(self._watched, Watch.mark)
        self._told = self._watched.told
        self._quotas.enter(self._watched)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._quotas.leave(self._watched)
        if (mark := self._mark) is not None:
            await self._quotas.settled(self._watched, lambda watch: watch.forget(mark))

    async def end(self) -> tuple[Changes, QuotaExceeded | None]:
        """To be asked once, when the run has ended: what was changed meanwhile, and the quota that is exceeded."""
        mark, self._mark = self._mark, None
        assert mark is not None
        changes = await self._quotas.settled(self._watched, lambda watch: watch.changes(mark))
        error = self._quotas.exceeded(self._watched)
        if error is None and self._watched.told != self._told:
            error = self._watched.error  # word of it came when its outcome was on the way already
        return changes, error
