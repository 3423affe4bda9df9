"""Storage without folders: a session's files live in a store of objects, and are used in a local copy.

A commit puts what changed under keys of its own (`.rev/<fence>-<n>/…`), then the revision's index, and then names the
revision in the session's lease, which makes it current: no object that a current index names is ever written again.
What one process holds of a session is believed only by that process; every start begins without copies.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog

from dataproc.clock import Clock
from dataproc.errors import Conflict, DataprocError, StorageUnavailable
from dataproc.storage.backend import on_disk
from dataproc.storage.folders import Folders, Tree
from dataproc.storage.object_store.applications import Applications
from dataproc.storage.object_store.copy import Copy, index_key, revisions_of
from dataproc.storage.object_store.earlier import Earlier
from dataproc.storage.object_store.fetching import fetch_all
from dataproc.storage.object_store.holding import Holding
from dataproc.storage.object_store.housekeeping import House
from dataproc.storage.object_store.index import Index, KeptFile, Signature
from dataproc.storage.object_store.keeping import put
from dataproc.storage.object_store.leases import Leases
from dataproc.storage.object_store.looking import Looking
from dataproc.storage.object_store.objects import Objects
from dataproc.storage.object_store.stopping import Hurry
from dataproc.storage.object_store.survey import Survey, survey
from dataproc.storage.object_store.together import alone, put_all
from dataproc.storage.usage.quotas import Quotas
from dataproc.storage.usage.touches import Touches
from dataproc.types import Elsewhere, Lease, Usage

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
        self._holding = Holding(leases, clock)
        self._count = itertools.count(1)  # of all sessions: with the fence it names a revision that never was
        self._applications = Applications(objects, folders, clock)
        self._earlier = Earlier(folders, clock)
        self._house = House(objects, folders, leases, clock, self._copies, self._earlier, self._lost, self._kept, most)
        self._left: Callable[[str], Awaitable[None]] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._hurry = Hurry(objects)

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
        return await self._holding.elsewhere(session_id)

    def on_left(self, act: Callable[[str], Awaitable[None]]) -> None:
        self._left = act

    def enter(self, session_id: str, tree: Tree, application: tuple[str, str] | None) -> Awaitable[object] | None:
        copy = self._copies.get(session_id)
        if copy is not None and copy.tree is tree:
            copy.users += 1
        return None if application is None else self._applications.enter(application)

    def leave(self, session_id: str, tree: Tree, application: tuple[str, str] | None) -> None:
        copy = self._copies.get(session_id)
        if copy is not None and copy.tree is tree:
            copy.users -= 1
        if application is not None:
            self._applications.leave(application)

    # ------------------------------------------------------------------------------------------------- fetching

    async def bring(self, session_id: str) -> Tree:
        self._house.begin()
        lease = await self._holding.take(session_id)
        copy = self._copies.get(session_id)
        if copy is not None and copy.index.revision != (lease.revision or ""):
            await self._lost(copy)
            copy = None
        if copy is None:
            copy = self._copies[session_id] = await self._fetched(session_id, lease)
            self._house.publish(copy)
        copy.lease, copy.used = lease, self._clock.monotonic()
        return copy.tree

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
        def read(revision: str) -> bytes:
            data = self._objects.read(index_key(session_id, revision))
            if data is None:
                raise ValueError("no index")
            return data

        try:
            return await alone(self._objects.threads, lambda: Index.loads(read(revision), read))
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
        before = copy.failures
        async with copy.lock:
            copy.waiting = None
            if copy.failures != before:  # whoever waits for a store that is away has waited once
                raise StorageUnavailable("the object store did not answer as it should; try again", reason="failed")
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
            if found.paths:
                await self._stored(copy, found)
        except BaseException as error:
            copy.failures += isinstance(error, StorageUnavailable)
            copy.touched.merge(touched)
            raise
        copy.dirty = False
        copy.touched.sure &= not found.linked

    async def _stored(self, copy: Copy, found: Survey) -> None:
        copy.dirty = True
        revision = f"{copy.lease.fence}-{next(self._count)}"
        prefix = f"{revisions_of(copy.session)}/{revision}"
        keys = {names: f"{prefix}/{number}" for number, names in enumerate(found.changed)}
        copy.failed |= {*keys.values(), index_key(copy.session, revision)}
        puts = [(size, partial(self._put, copy.tree, names, keys[names])) for names, size in found.changed.items()]
        for path, kept in await put_all(self._objects, puts):
            if kept is not None:
                found.entries[path], found.seen[path] = kept
        index = copy.index.followed(revision, found.entries, found.paths)
        data, size = await asyncio.to_thread(lambda: (index.dumps(), index.size))
        await alone(self._objects.threads, self._objects.write, index_key(copy.session, revision), data)
        if not await self._leases.commit(copy.session, copy.lease.fence, revision):
            await self._lost(copy)
            raise _conflict()
        copy.supersede(index, found.seen, found.paths, size)
        self._house.publish(copy)

    def _put(self, tree: Tree, names: tuple[str, ...], key: str) -> tuple[str, tuple[KeptFile, Signature] | None]:
        found = put(self._objects, tree, names, key, self.folders.worker_uid)
        return "/".join(names), None if found is None else found[:2]

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
        self._quotas.left(copy.session)
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
        if self._checking is None or self._checking.done():  # a store that hangs holds up one check, not all
            self._checking = asyncio.create_task(alone(self._objects.threads, self._objects.check))
            self._checking.add_done_callback(_retrieved)
        await asyncio.shield(self._checking)

    async def settle(self) -> None:
        await self._house.settle()

    def hurry(self, after: float) -> None:
        self._hurry.begin(after)

    async def close(self) -> None:
        self._hurry.begin(0.0)
        await asyncio.gather(*(self._last_commit(copy) for copy in list(self._copies.values()) if copy.dirty))
        await self._applications.close()
        await self._house.close()
        self._hurry.end()

    async def _last_commit(self, copy: Copy) -> None:
        try:
            async with copy.lock:
                await self._kept(copy)
        except DataprocError as error:
            _log.error("storage.not_stored", session_id=copy.session, reason=error.message)


def _conflict() -> Conflict:
    return Conflict("the session was taken over by another server; what this call changed is not kept", reason="lease")


def _retrieved(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waited was told; nobody may be waiting any more
