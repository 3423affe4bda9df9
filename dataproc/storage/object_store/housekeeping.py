"""What is done in the background for sessions on object storage: leases, plain names, deletions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from dataproc.clock import Clock
from dataproc.errors import DataprocError
from dataproc.storage.backend import on_disk
from dataproc.storage.folders import Folders, session_place
from dataproc.storage.object_store.copy import Copy
from dataproc.storage.object_store.earlier import Earlier
from dataproc.storage.object_store.leases import Leases
from dataproc.storage.object_store.objects import Objects
from dataproc.storage.object_store.publishing import publish, remove
from dataproc.storage.object_store.together import alone
from dataproc.types import Dropped

IDLE = 20  # times a lease's duration; then it is let run out, while the copy stays
RESTED = 2.0  # seconds since its last use before a copy may be taken away
CERTAIN = 2  # times a lease's duration: whoever lost a session has noticed by then
LAST_COPIES = 5.0  # seconds that a stop waits for plain names

_log = structlog.get_logger("dataproc.storage")


class House:
    """Keeps the copies of one backend, until it is closed."""

    def __init__(
        self, objects: Objects, folders: Folders, leases: Leases, clock: Clock, copies: dict[str, Copy],
        earlier: Earlier, lost: Callable[[Copy], Awaitable[None]], kept: Callable[[Copy], Awaitable[None]], most: int,
    ) -> None:  # fmt: skip
        """lost: takes a copy away. kept: commits one whose lock is held. most: bytes of all copies."""
        self._objects, self._folders, self._leases, self._clock = objects, folders, leases, clock
        self._earlier = earlier
        self._copies, self._lost, self._kept, self._most = copies, lost, kept, most
        self._loop: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._deleting: set[str] = set()
        self._deleted: set[str] = set()  # once; a second look follows
        self._closed = False

    def begin(self) -> None:
        """Work in the background from now on."""
        if self._loop is None and not self._closed:
            self._loop = asyncio.create_task(self._run(), name="storage")

    async def sweep(self) -> None:
        """Set the copies of an earlier life aside, and go on with deletions."""
        await on_disk(self._earlier.begin)
        await on_disk(self._folders.sweep)
        self.begin()
        await self._delete_dropped()

    async def settle(self) -> None:
        """Wait until what was begun is done."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        await asyncio.to_thread(self._folders.trash.settle)

    async def close(self) -> None:
        """Stop; give the leases back."""
        first, self._closed = not self._closed, True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=LAST_COPIES)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if first:
            with suppress(DataprocError):
                await self._leases.release({copy.session: copy.lease.fence for copy in self._copies.values()})
            self._copies.clear()
            await asyncio.to_thread(self._folders.trash.close)
            await asyncio.to_thread(self._objects.close)

    # ----------------------------------------------------------------------------------------------- regularly

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._leases.duration / 3)
            for step in (self._renew, self._delete_dropped, self._repair, self._make_room):
                try:
                    await step()
                except Exception as error:
                    _log.warning("storage.housekeeping_failed", step=step.__name__, reason=str(error))

    async def _renew(self) -> None:
        now, idle = self._clock.monotonic(), IDLE * self._leases.duration
        held = {
            copy.session: copy
            for copy in list(self._copies.values())
            if copy.users or copy.dirty or copy.publishing is not None or now - copy.used < idle
        }
        renewed = await self._leases.renew({each: copy.lease.fence for each, copy in held.items()})
        for each, copy in held.items():
            if each in renewed:
                copy.renewed(renewed[each])
            elif self._copies.get(each) is copy:
                _log.warning("storage.lease_lost", session_id=each)
                await self._lost(copy)

    async def _repair(self) -> None:
        """Try again what the store did not take."""
        for copy in list(self._copies.values()):
            if copy.dirty and not copy.lock.locked():
                with suppress(DataprocError):
                    async with copy.lock:
                        await self._kept(copy)
            if copy.published is not copy.index:
                self.publish(copy)

    async def _make_room(self) -> None:
        """Take the least used copies away, as long as all together are too large."""
        used = sum(copy.size for copy in self._copies.values())
        rested = self._clock.monotonic() - RESTED
        for copy in sorted(self._copies.values(), key=lambda copy: copy.used):
            if used <= self._most:
                break
            if copy.users or copy.dirty or copy.lock.locked() or copy.publishing is not None or copy.used > rested:
                continue
            used -= copy.size
            await self._lost(copy)
            await self._leases.release({copy.session: copy.lease.fence})
        await on_disk(self._earlier.make_room, self._most - used)

    # -------------------------------------------------------------------------------------- plain names, deletion

    def publish(self, copy: Copy) -> None:
        """Copy to plain names what was changed, and remove what no revision needs."""
        done = copy.published is copy.index and not copy.stale and not copy.orphans
        if copy.publishing is None and not done and not self._closed:
            copy.publishing = self._spawn(self._published(copy))

    async def _published(self, copy: Copy) -> None:
        try:
            while self._copies.get(copy.session) is copy and await publish(copy, self._objects, self._leases):
                pass
        except DataprocError as error:
            _log.warning("storage.publish_failed", session_id=copy.session, reason=error.message)
        finally:
            copy.publishing = None

    async def stop_publishing(self, copy: Copy) -> None:
        """What is under way ends; nothing more is begun."""
        if (task := copy.publishing) is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])

    def delete(self, session_id: str) -> None:
        """Delete the objects of a dropped session."""
        if not self._closed:
            self._delete(Dropped(session_id, 0.0))

    async def _delete_dropped(self) -> None:
        for dropped in await self._leases.dropped():
            self._delete(dropped)

    def _delete(self, dropped: Dropped) -> None:
        certain = dropped.seconds > CERTAIN * self._leases.duration
        if dropped.session in self._deleting or (dropped.session in self._deleted and not certain):
            return
        self._deleting.add(dropped.session)
        self._spawn(self._deletion(dropped.session, certain))

    async def _deletion(self, session_id: str, certain: bool) -> None:
        """Delete all that there is. Whoever had the session may still be putting something, until it is certain."""
        try:
            await on_disk(self._earlier.discard, session_id)
            left = await alone(self._objects.threads, self._objects.keys, session_place(session_id))
            await remove(self._objects, left)
            self._deleted.add(session_id)
            if certain:
                await self._leases.forget(session_id)
                self._deleted.discard(session_id)
        except DataprocError as error:
            _log.warning("storage.deletion_failed", session_id=session_id, reason=error.message)
        finally:
            self._deleting.discard(session_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
