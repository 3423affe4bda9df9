"""Sees sessions to their end: closed by a caller, out of time, their key revoked, or left half-ended by a crash."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import structlog

from dataproc.errors import StorageUnavailable
from dataproc.sessions import Due, Reason, Session, Sessions
from dataproc.settings import Settings
from dataproc.telemetry import Metrics
from dataproc.types import SERVER, Actor

TICK = 0.5  # seconds between two looks for what is due
RETRY = 5.0  # seconds until the next look where the database or the store does not answer
AT_ONCE = 64  # ends under way that no caller asked for; who closes one of them meanwhile waits for all
PACE = 3.0  # times as long as an end took, until the next one begins, while others call
HURRY = 60.0  # seconds of full batches after which that is not heeded: who is late for that long would never catch up
UPKEEP = 10.0  # seconds between two counts of sessions
RETENTION = 600.0  # seconds between two looks for old records
FORGOTTEN = 1000  # records deleted in one transaction

_log = structlog.get_logger(__name__)


class Quiescing(Protocol):
    """What has runs under way."""

    @property
    def calling(self) -> bool:
        """Whether runs are under way, or were a moment ago."""
        ...

    async def quiesce(self, session_id: str, wait: float) -> None:
        """Return when the session has no run and no worker; runs that last longer than `wait` seconds are cancelled."""
        ...


class Discarding(Protocol):
    """What has the directories."""

    async def discard(self, session_id: str) -> None:
        """Put the session's directory out of everybody's reach, if it has one."""
        ...


class Records(Protocol):
    """What has records of runs."""

    async def forget(self, older_than: float, limit: int) -> int:
        """Delete records of runs that ended so many seconds ago, at most `limit`; returns how many."""
        ...


class Reaper:
    """Ends sessions, each once, however many ask for it and wherever the server was stopped on the way.

    The files of an ended session that can be restored are deleted when its grace period is over.
    """

    def __init__(
        self,
        sessions: Sessions,
        runs: Records,
        executor: Quiescing,
        workspaces: Discarding,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._sessions = sessions
        self._runs = runs
        self._executor = executor
        self._workspaces = workspaces
        self._settings = settings
        self._metrics = metrics
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._loop: asyncio.Task[None] | None = None
        self._trouble = False
        self._full_since: float | None = None  # since when each look has found as many as it could begin

    async def start(self) -> None:
        """Take up what an earlier life of the server left, and go on looking in the background."""
        left = await self._sessions.end_one_shots()
        if left:
            _log.info("one_shot_sessions_left", sessions=left)
        self._loop = asyncio.create_task(self._run(), name="reaper")

    async def stop(self) -> None:
        """Finish the ends under way, within about the close wait; what is left then is taken up at the next start."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
        if self._ends:
            _, late = await asyncio.wait(list(self._ends.values()), timeout=self._settings.close_wait + 1)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        with suppress(StorageUnavailable):
            await self._sessions.wind()

    async def end(self, session_id: str, reason: Reason, by: Actor = SERVER) -> None:
        """End a session, and return when its directory is out of reach. Ending what is over is no error.

        Who asks while it is being ended waits for the same end; who goes away does not stop it. Raises
        StorageUnavailable; the session is closing then, and the end is tried again in the background.
        """
        await asyncio.shield(self._begin(session_id, lambda: self._end(session_id, reason, by)))

    def _begin(self, session_id: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        task = self._ends.get(session_id)
        if task is None:
            task = asyncio.create_task(work(), name=f"end {session_id}")
            self._ends[session_id] = task
            task.add_done_callback(lambda task: self._ended(task, session_id))
        return task

    async def _end(self, session_id: str, reason: Reason, by: Actor = SERVER) -> None:
        session = await self._sessions.begin_end(session_id, reason, by)
        if session is None:
            return
        await self._executor.quiesce(session_id, self._settings.close_wait)
        if not session.one_shot and await self._sessions.busy_elsewhere([session_id]):
            return  # it stays closing: the node that has its runs sees it to its end
        grace = self._sessions.grace(session)
        if not grace:  # else the files stay where they are: without a session that takes calls nobody reaches them
            await self._workspaces.discard(session_id)
        await self._sessions.finish_end(session_id, grace)
        told = session.reason or reason
        self._metrics.session_ended(told)
        _log.info("session_ended", session_id=session_id, key=session.key, reason=told)

    def _pace(self) -> float:
        late = self._full_since is not None and time.monotonic() - self._full_since > HURRY
        return PACE if self._executor.calling and not late else 0.0

    def _begin_all(self, ids: list[str], work: Coroutine[Any, Any, None]) -> None:
        """Do the work for all of them in one task, which whoever waits for one of them waits for."""
        task = asyncio.create_task(work, name=f"end {len(ids)} sessions")
        self._ends.update(dict.fromkeys(ids, task))
        task.add_done_callback(lambda task: self._ended(task, *ids))

    async def _end_all(self, due: list[Due]) -> None:
        """End many, one by one and with few transactions: other callers get most of the time between two of them."""
        done: list[Session] = []
        trouble: Exception | None = None
        try:
            begun = time.monotonic()
            closing = await self._sessions.begin_end_all(due)
            elsewhere = await self._sessions.busy_elsewhere(session.id for session in closing)
            for session in closing:
                if session.id in elsewhere:
                    continue  # the node that has its runs sees it to its end
                await asyncio.sleep(self._pace() * (time.monotonic() - begun))
                begun = time.monotonic()
                try:
                    await self._executor.quiesce(session.id, self._settings.close_wait)
                    if not self._sessions.grace(session):
                        await self._workspaces.discard(session.id)
                except Exception as error:  # of this one; it is closing, and the next look takes it up
                    trouble = error
                    continue
                done.append(session)
                self._sessions.tell_end(session)
                self._metrics.session_ended(session.reason or "closed")
        finally:
            await self._sessions.finish_end_all(done)
        if trouble is not None:
            raise trouble

    async def _scrap_all(self, ids: list[str]) -> None:
        """Delete what was kept of ended sessions; a crash between the steps leaves it to be done again."""
        for session_id in ids:
            if await self._sessions.begin_scrap(session_id):
                await self._workspaces.discard(session_id)
                await self._sessions.finish_scrap(session_id)

    def _ended(self, task: asyncio.Task[None], *ids: str) -> None:
        for session_id in ids:
            del self._ends[session_id]
        if not task.cancelled() and (error := task.exception()):
            self._trouble = True
            _log.error("session_end_failed", session_id=ids[0], sessions=len(ids), exc_info=error)

    # ------------------------------------------------------------------------------------------ in the background

    async def _run(self) -> None:
        counted = forgotten = float("-inf")
        while True:
            full = False
            try:
                self._trouble = False
                full = await self.look()
                self._full_since = (self._full_since or time.monotonic()) if full else None
                if time.monotonic() - counted >= UPKEEP:
                    await self._count()
                    counted = time.monotonic()
                if time.monotonic() - forgotten >= RETENTION:
                    await self.forget()
                    forgotten = time.monotonic()
            except Exception as error:
                self._trouble = True
                _log.error("reaper_failed", exc_info=error)
            await self._pause(full)

    async def _pause(self, full: bool) -> None:
        """Until the next look: no longer than the ends take where more may be due."""
        if not full:
            await asyncio.sleep(TICK)
        elif self._ends:
            await asyncio.wait(list(self._ends.values()), timeout=TICK)
        if self._trouble:
            await asyncio.sleep(RETRY - TICK)

    async def look(self) -> bool:
        """Begin to end the sessions that are due, as many as may be ended at once; whether there may be more."""
        room = AT_ONCE - len(self._ends)
        if room <= 0:
            await self._sessions.wind()
            return True
        most = AT_ONCE + len(self._ends)
        due = [each for each in await self._sessions.due(most) if each.id not in self._ends][:room]
        late = [each for each in await self._sessions.late(most) if each not in self._ends][: room - len(due)]
        busy = [each for each in due if self._sessions.running(each.id)]
        for each in busy:
            self._begin(each.id, partial(self._end, *each))
        if quiet := [each for each in due if each not in busy]:
            self._begin_all([each.id for each in quiet], self._end_all(quiet))
        if late:
            self._begin_all(late, self._scrap_all(late))
        return len(due) + len(late) >= room

    async def settle(self) -> None:
        """Wait for all ends that are under way now, failed ones too."""
        if self._ends:
            await asyncio.wait(list(self._ends.values()))

    async def _count(self) -> None:
        for state, count in (await self._sessions.count()).items():
            self._metrics.sessions(state, count)

    async def forget(self) -> None:
        """Delete tombstones and records of runs that are older than they are kept, in small transactions."""
        while await self._sessions.forget(FORGOTTEN) == FORGOTTEN:
            pass
        while await self._runs.forget(self._settings.run_retention, FORGOTTEN) == FORGOTTEN:
            pass
