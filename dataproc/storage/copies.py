"""Storage without folders: a session's files live in a store of objects, and are used in a local copy.

A commit puts what changed under keys of its own (`.rev/<fence>-<n>/…`), then the revision's index, and then names the
revision in the session's lease, which makes it current: no object that a current index names is ever written again.
What one process holds of a session is believed only by that process; every start begins without copies.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog

from dataproc.clock import Clock
from dataproc.errors import Conflict, DataprocError, SessionEnded, StorageUnavailable
from dataproc.storage.applications import Applications
from dataproc.storage.backend import bounded, on_disk
from dataproc.storage.copy import Copy, index_key, revisions_of
from dataproc.storage.earlier import Earlier
from dataproc.storage.fetching import fetch_all
from dataproc.storage.folders import Folders, Tree
from dataproc.storage.housekeeping import House
from dataproc.storage.index import Index, KeptFile, Signature
from dataproc.storage.keeping import put
from dataproc.storage.leases import Leases
from dataproc.storage.looking import Looking
from dataproc.storage.objects import Objects
from dataproc.storage.quotas import Quotas
from dataproc.storage.survey import Survey, survey
from dataproc.storage.together import alone, together
from dataproc.storage.touches import Touches
from dataproc.types import Dropped, Elsewhere, Lease, Usage, rfc3339

BELIEVED = 1.0  # seconds for which another node's lease is believed without asking again
MOST_BELIEVED = 8192
GRACE = 0.5  # seconds that are waited longer than a lease has left

_log = structlog.get_logger("dataproc.storage")


class CopyBackend:
    """A store of objects, leases on the sessions in it, and local copies of those that were used since the start."""

    def __init__(
        self, objects: Objects, folders: Folders, leases: Leases, clock: Clock, quotas: Quotas, most: int
    ) -> None:
        """quotas: has sessions under watch, noting what is touched. most: bytes of all local copies."""
        self.folders = folders
        self._quotas = quotas
        self._looking = Looking(quotas)
        self._objects = objects
        self._leases = leases
        self._clock = clock
        self._copies: dict[str, Copy] = {}
        self._others: dict[str, tuple[Elsewhere, float]] = {}
        self._count = itertools.count(1)  # of all sessions: with the fence it names a revision that never was
        self._applications = Applications(objects, folders)
        self._earlier = Earlier(folders, clock)
        self._house = House(objects, folders, leases, clock, self._copies, self._earlier, self._lost, self._kept, most)
        self._left: Callable[[str], Awaitable[None]] | None = None

    def known(self, session_id: str) -> Tree | None:
        copy = self._copies.get(session_id)
        if copy is None:
            return None
        now = self._clock.monotonic()
        if copy.lease.until <= now:
            return None
        copy.used = now
        return copy.tree

    async def elsewhere(self, session_id: str) -> Elsewhere | None:
        now = self._clock.monotonic()
        believed = self._others.get(session_id)
        if believed is not None and believed[1] > now:
            return believed[0]
        found = await self._leases.find(session_id)
        self._others.pop(session_id, None)
        if found is not None:
            bounded(self._others, MOST_BELIEVED)
            self._others[session_id] = found, now + min(BELIEVED, found.seconds)
        return found

    def on_left(self, act: Callable[[str], Awaitable[None]]) -> None:
        self._left = act

    def enter(self, session_id: str, tree: Tree) -> None:
        copy = self._copies.get(session_id)
        if copy is not None and copy.tree is tree:
            copy.users += 1

    def leave(self, session_id: str, tree: Tree) -> None:
        copy = self._copies.get(session_id)
        if copy is not None and copy.tree is tree:
            copy.users -= 1

    # ------------------------------------------------------------------------------------------------- fetching

    async def bring(self, session_id: str) -> Tree:
        self._house.begin()
        lease = await self._taken(session_id)
        copy = self._copies.get(session_id)
        if copy is not None and copy.index.revision != (lease.revision or ""):
            await self._lost(copy)
            copy = None
        if copy is None:
            copy = self._copies[session_id] = await self._fetched(session_id, lease)
            self._house.publish(copy)
        copy.lease, copy.used = lease, self._clock.monotonic()
        return copy.tree

    async def _taken(self, session_id: str) -> Lease:
        """The lease, waited for as long as one that is not renewed can last. Raises Conflict, SessionEnded."""
        begun = self._clock.monotonic()
        while True:
            match await self._leases.take(session_id):
                case Lease() as lease:
                    return lease
                case Dropped():
                    at = rfc3339(self._clock.now())
                    raise SessionEnded("the session has ended; open a new one", reason="closing", ended_at=at)
                case Elsewhere(node, _, seconds):
                    waited = self._clock.monotonic() - begun
                    if waited > self._leases.duration + GRACE:
                        _log.warning("storage.session_elsewhere", session_id=session_id, holder=node)
                        raise Conflict(
                            "another server has the session, and cannot be reached from here", reason="lease"
                        )
                    await asyncio.sleep(min(seconds, self._leases.duration) + GRACE / 10)

    async def _fetched(self, session_id: str, lease: Lease) -> Copy:
        await on_disk(self.folders.discard, session_id)  # what a fetch that failed has left
        tree = await on_disk(self.folders.make, session_id)
        self._quotas.left(session_id)  # who watches the folders that were there before hears nothing of these
        index = Index() if lease.revision is None else await self._index(session_id, lease.revision)
        earlier = self._earlier.of(session_id)
        seen = await fetch_all(self._objects, tree, index, self.folders.worker_uid, earlier)
        if earlier is not None:
            await on_disk(self._earlier.discard, session_id)
        published = index if lease.published == lease.revision else None
        return Copy(session_id, tree, lease, index, seen, published, orphans=lease.fence > 1)

    async def _index(self, session_id: str, revision: str) -> Index:
        data = await alone(self._objects.threads, self._objects.read, index_key(session_id, revision))
        try:
            if data is None:
                raise ValueError
            return await asyncio.to_thread(Index.loads, data)
        except (ValueError, KeyError, TypeError) as error:
            raise StorageUnavailable("the store's index of the session cannot be read", reason="index") from error

    # --------------------------------------------------------------------------------------------------- keeping

    async def commit(self, session_id: str, tree: Tree, application: tuple[str, str] | None = None) -> None:
        # a caller that is cancelled leaves the commit at work
        await asyncio.shield(self._commit(session_id, tree, application))

    async def _commit(self, session_id: str, tree: Tree, application: tuple[str, str] | None) -> None:
        copy = self._copies.get(session_id)
        if copy is None or copy.tree is not tree:
            raise _conflict()
        of_application = await self._looking.look(copy, self._applications.looker(application))
        if of_application is not None:
            await self._applications.keep(of_application)
        if not (copy.touched or copy.dirty or copy.waiting or copy.lock.locked()):
            await self._assured(copy)
            return
        if copy.waiting is None:  # who comes while a commit is at work shares the next one
            copy.waiting = asyncio.create_task(self._next_commit(copy))
            copy.waiting.add_done_callback(_retrieved)
        await asyncio.shield(copy.waiting)

    async def _next_commit(self, copy: Copy) -> None:
        async with copy.lock:
            copy.waiting = None
            await self._kept(copy)

    async def _kept(self, copy: Copy) -> None:
        """Commit what was changed. Raises Conflict, StorageUnavailable. The caller has the copy's lock."""
        if self._copies.get(copy.session) is not copy:
            raise _conflict()
        await self._looking.look(copy)
        touched, copy.touched = copy.touched, Touches()
        try:
            found = await on_disk(survey, copy.tree, copy.index, copy.seen, touched)
            await self._assured(copy)
            if found.changed or (found.entries is not copy.index.entries and found.entries != copy.index.entries):
                await self._stored(copy, found)
        except BaseException:
            copy.touched.merge(touched)
            raise
        copy.dirty = False
        copy.touched.sure &= not found.linked

    async def _stored(self, copy: Copy, found: Survey) -> None:
        copy.dirty = True
        revision = f"{copy.lease.fence}-{next(self._count)}"
        prefix = f"{revisions_of(copy.session)}/{revision}"
        keys = {f"{prefix}/{number}": names for number, names in enumerate(found.changed)}
        copy.failed |= {*keys, index_key(copy.session, revision)}
        puts = (partial(self._put, copy.tree, names, key) for key, names in keys.items())
        for path, kept in await together(self._objects.threads, puts):
            if kept is not None:
                found.entries[path], found.seen[path] = kept
        index = Index(revision, found.entries)
        data = await asyncio.to_thread(index.dumps)
        await alone(self._objects.threads, self._objects.write, index_key(copy.session, revision), data)
        if not await self._leases.commit(copy.session, copy.lease.fence, revision):
            await self._lost(copy)
            raise _conflict()
        copy.supersede(index, found.seen)
        self._house.publish(copy)

    def _put(self, tree: Tree, names: tuple[str, ...], key: str) -> tuple[str, tuple[KeptFile, Signature] | None]:
        return "/".join(names), put(self._objects, tree, names, key, self.folders.worker_uid)

    async def _assured(self, copy: Copy) -> None:
        """See that the lease is still ours. Raises Conflict."""
        if copy.lease.until > self._clock.monotonic():
            return
        renewed = await self._leases.renew({copy.session: copy.lease.fence})
        if copy.session not in renewed:
            await self._lost(copy)
            raise _conflict()
        copy.renewed(renewed[copy.session])

    async def _lost(self, copy: Copy) -> None:
        """Take a copy away, and let nobody work in it any more."""
        if self._copies.get(copy.session) is not copy:
            return
        del self._copies[copy.session]
        await self._house.stop_publishing(copy)
        if self._left is not None:
            await self._left(copy.session)
        self._quotas.drop(copy.session)
        await on_disk(self._earlier.take, copy.session)  # it may come back

    # -------------------------------------------------------------------------------------------------- deleting

    async def drop(self, session_id: str) -> None:
        await asyncio.shield(self._dropped(session_id))

    async def _dropped(self, session_id: str) -> None:
        await self._leases.drop(session_id)
        copy = self._copies.pop(session_id, None)
        if copy is not None:
            await self._house.stop_publishing(copy)
            async with copy.lock:  # a commit that is at work puts objects that are to be deleted
                pass
        await on_disk(self.folders.discard, session_id)
        await on_disk(self._earlier.discard, session_id)
        self._house.delete(session_id)

    # ------------------------------------------------------------------------------------------------- the rest

    async def measured(self, session_id: str) -> Usage:
        revision = await self._leases.revision(session_id)
        index = Index() if revision is None else await self._index(session_id, revision)
        return Usage(index.size, len(index.entries))

    async def application(self, key: str, module: str) -> Path:
        return await self._applications.bring(key, module)

    async def sweep(self) -> None:
        await self.check()
        await self._house.sweep()

    async def check(self) -> None:
        await on_disk(self.folders.check)
        await on_disk(self._objects.check)

    async def settle(self) -> None:
        await self._house.settle()

    async def close(self) -> None:
        for copy in [copy for copy in self._copies.values() if copy.dirty]:
            with suppress(DataprocError):
                async with copy.lock:
                    await self._kept(copy)
        await self._house.close()


def _conflict() -> Conflict:
    return Conflict("the session was taken over by another server; what this call changed is not kept", reason="lease")


def _retrieved(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waited was told; nobody may be waiting any more
