"""The workspaces of sessions: one folder each, that only its session can reach."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from dataproc.clock import Clock
from dataproc.errors import Conflict, NotFound, SessionEnded
from dataproc.storage.archive import Archive, Kind
from dataproc.storage.backend import Backend
from dataproc.storage.files import Condition, Entry, Files, Reading, Written
from dataproc.storage.folders import Folders, Tree, session_place
from dataproc.storage.hashing import Hashing
from dataproc.storage.listing import Listing, Selection, list_folder
from dataproc.storage.paths import RelPath, told
from dataproc.storage.upload import Upload
from dataproc.storage.usage.observing import Observed, Room
from dataproc.storage.usage.quotas import Quotas
from dataproc.types import Elsewhere, Usage, rfc3339

_GONE = 100_000  # sessions remembered to be discarded ...
_GONE_FOR = 600.0  # ... and for how long, in seconds: a request that found its session alive has long ended by then

T = TypeVar("T")


class Workspaces:
    """Every session's workspace. Knows no keys and no states: a session id selects, the caller has been checked."""

    def __init__(self, backend: Backend, clock: Clock, quotas: Quotas) -> None:
        self.quotas = quotas
        self.hashing = Hashing()
        quotas.measure = backend.measured
        self._backend = backend
        self._clock = clock
        self._bringing: dict[str, asyncio.Task[Tree]] = {}
        self._gone: dict[str, tuple[float, str]] = {}  # when, by both clocks

    def of(self, session_id: str, key: str = "") -> Workspace:
        """The workspace of a session; nothing is made yet. Raises InvalidParams for what is no session id.

        key: whose quotas, too, hold for what is written over HTTP.
        """
        if self._backend.known(session_id) is None:
            session_place(session_id)
        return Workspace(self, self._backend, session_id, key)

    async def observe(self, session_id: str, key: str, tree: Tree) -> Observed:
        """A run in the checked-out folders of a session: its changes, and the quotas of the session and its key."""
        return Observed(self.quotas, await self.quotas.watch(session_id, tree, key))

    async def usage(self, session_id: str) -> Usage:
        """What a session takes on this node."""
        return await self.quotas.usage(session_id, self.known(session_id) or self._backend.folders.tree(session_id))

    async def discard(self, session_id: str) -> None:
        """Put a session's files out of everybody's reach, to be deleted in the background. Raises StorageUnavailable.

        Whoever found the session alive just before, and comes now, gets SessionEnded and makes nothing anew.
        """
        session_place(session_id)
        self._remember_gone(session_id)
        if (task := self._bringing.get(session_id)) is not None:
            await asyncio.wait([task])
        self.quotas.drop(session_id)
        await self._backend.drop(session_id)

    async def sweep(self) -> None:
        """At the start: go on with deletions, and drop files under way, that an earlier process left."""
        await self._backend.sweep()

    async def application(self, key: str, module: str) -> Path:
        """The folder that a module keeps across the sessions of a key. Raises InvalidParams, StorageUnavailable."""
        return await self._backend.application(key, module)

    async def check(self) -> None:
        """Raises StorageUnavailable where the storage cannot be written to."""
        await self._backend.check()

    def hurry(self, after: float) -> None:
        """The server stops: from `after` seconds on nobody waits for a storage that does not answer."""
        self._backend.hurry(after)

    async def close(self) -> None:
        """Stop the background deletions; the next start goes on with them."""
        await self.quotas.close()
        await self._backend.close()

    async def settle(self) -> None:
        """Wait until all that was discarded is deleted."""
        await self._backend.settle()

    @property
    def folders(self) -> Folders:
        """The local folders under the workspaces."""
        return self._backend.folders

    def known(self, session_id: str) -> Tree | None:
        """The folders of a session that are surely there, without asking the disk."""
        return self._backend.known(session_id)

    async def elsewhere(self, session_id: str) -> Elsewhere | None:
        """Which other node has the session now; None where it is here, or is to be brought here."""
        return None if self._backend.known(session_id) is not None else await self._backend.elsewhere(session_id)

    def on_left(self, act: Callable[[str], Awaitable[None]]) -> None:
        """Have `act` end what still works in a session's folders before they are taken away from this node."""

        async def leave(session_id: str) -> None:
            await act(session_id)
            self.quotas.left(session_id)

        self._backend.on_left(leave)

    async def bring(self, session_id: str) -> Tree:
        """The folders of a session, made or fetched if they are missing; callers at once share one making."""
        self.refuse_gone(session_id)
        task = self._bringing.get(session_id)
        if task is None:
            task = asyncio.create_task(self._backend.bring(session_id))
            self._bringing[session_id] = task
            task.add_done_callback(lambda _: self._bringing.pop(session_id, None))
        tree = await asyncio.shield(task)
        self.refuse_gone(session_id)
        return tree

    def refuse_gone(self, session_id: str) -> None:
        """Raises SessionEnded for a session whose files were discarded."""
        if (gone := self._gone.get(session_id)) is not None:
            raise SessionEnded("the session has ended; open a new one", reason="closing", ended_at=gone[1])

    def _remember_gone(self, session_id: str) -> None:
        now = self._clock.monotonic()
        while self._gone and (now - next(iter(self._gone.values()))[0] > _GONE_FOR or len(self._gone) >= _GONE):
            del self._gone[next(iter(self._gone))]
        self._gone.pop(session_id, None)
        self._gone[session_id] = now, rfc3339(self._clock.now())


class Workspace:
    """One session's directory."""

    __slots__ = ("_all", "_backend", "_key", "session_id")

    def __init__(self, workspaces: Workspaces, backend: Backend, session_id: str, key: str) -> None:
        self._all = workspaces
        self._key = key
        self._backend = backend
        self.session_id = session_id

    def checkout(self, application: tuple[str, str] | None = None) -> Checkout:
        """The real folders, for as long as the block lasts; leaving it makes durable what was changed in them.

        application: key and module whose folder may be changed, too. Raises SessionEnded, StorageUnavailable, and
        Conflict where another node has, or took over, the session.
        """
        return Checkout(self._all, self._backend, self.session_id, application)

    async def stat(self, path: RelPath) -> Entry:
        """What lies at a path. Raises NotFound, InvalidParams."""
        return await self._on_disk(lambda files: files.stat(path))

    async def read(self, path: RelPath) -> Reading:
        """A regular file, opened; the caller closes it. Raises NotFound, InvalidParams, Conflict for a directory."""
        opening = asyncio.ensure_future(self._on_disk(lambda files: files.read(path)))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unread)
            raise

    async def list(self, path: RelPath, selection: Selection) -> Listing:
        """What a directory holds, sorted by name. Raises NotFound, InvalidParams."""
        return await self._on_disk(lambda files: list_folder(files, path, selection))

    async def archive(self, path: RelPath, kind: Kind, glob: str | None = None) -> Archive:
        """A directory as an archive that is made while it is read; the caller closes it. Raises NotFound."""
        return await self._on_disk(lambda files: Archive(files, path, kind, glob))

    def place(self, path: RelPath, reading: Reading) -> str | None:
        """Where an open file lies below the storage's folder; None if a link led to it. Does not block for long."""
        tree = self._all.known(self.session_id)
        if tree is None:
            return None
        root = os.path.realpath(self._backend.folders.root)
        place = str((tree.files / str(path)).relative_to(self._backend.folders.root))
        return place if reading.lies_at(f"{root}/{place}") else None

    async def write(
        self,
        path: RelPath,
        chunks: AsyncIterable[bytes],
        condition: Condition = None,
        sha256: bytes | None = None,
        announced: int = 0,
    ) -> Written:
        """Make or replace a file, whole or not at all. Whoever reads meanwhile sees the old one.

        chunks: large ones, each is a step in a thread, while the next one is awaited. sha256: the digest the bytes
        must have, else InvalidParams. announced: how many bytes they will be, as far as that is known.
        Raises PreconditionFailed, Conflict for a directory of that name, QuotaExceeded, StorageUnavailable, and what
        `chunks` raises.
        """
        async with self.checkout() as tree, await self._room(tree, path) as room:
            room.require(announced)
            upload = Upload(self._backend.folders, tree, path, hashed=sha256 is not None)
            try:
                await self._alive(_written_out(upload, room.kept(chunks), hashed=sha256 is not None))
                written = await self._alive(_below_path(upload.commit, condition, sha256))
            finally:
                await asyncio.to_thread(upload.close)
            self._all.refuse_gone(self.session_id)
        return written

    async def _room(self, tree: Tree, path: RelPath) -> Room:
        watched = await self._all.quotas.watch(self.session_id, tree, self._key)
        await self._all.quotas.settled(watched, lambda watch: None)
        replaced, missing = await asyncio.to_thread(Files(self._backend.folders, tree).room, path)
        return Room(self._all.quotas, watched, replaced, missing)

    async def delete(self, path: RelPath, condition: Condition = None, *, recursive: bool = False) -> None:
        """Delete a file, or with `recursive` a directory. Raises NotFound, InvalidParams, PreconditionFailed."""
        async with self.checkout() as tree:
            watched = await self._all.quotas.watch(self.session_id, tree, self._key)
            try:
                deleting = _below_path(Files(self._backend.folders, tree).delete, path, condition, recursive)
                await self._alive(deleting)
            finally:
                await self._all.quotas.counted(watched)

    async def _on_disk(self, work: Callable[[Files], T]) -> T:
        tree = self._all.known(self.session_id) or await self._all.bring(self.session_id)
        return await self._alive(_below_path(work, Files(self._backend.folders, tree)))

    async def _alive(self, work: Awaitable[T]) -> T:
        """What is missing because its session has ended meanwhile is told so."""
        try:
            return await work
        except NotFound:
            self._all.refuse_gone(self.session_id)
            raise


class Checkout:
    """The block in which a session's real folders are used."""

    __slots__ = ("_all", "_application", "_backend", "_session_id", "_tree")

    def __init__(
        self, workspaces: Workspaces, backend: Backend, session_id: str, application: tuple[str, str] | None
    ) -> None:
        self._all = workspaces
        self._backend = backend
        self._session_id = session_id
        self._application = application

    async def __aenter__(self) -> Tree:
        self._tree = self._all.known(self._session_id) or await self._all.bring(self._session_id)
        begins = self._backend.enter(self._session_id, self._tree, self._application)
        if begins is not None:
            try:
                await begins
            except BaseException:
                self._backend.leave(self._session_id, self._tree, self._application)
                raise
        return self._tree

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._backend.commit(self._session_id, self._tree, self._application)
        except Conflict:
            self._all.refuse_gone(self._session_id)
            raise
        finally:
            self._backend.leave(self._session_id, self._tree, self._application)


async def _written_out(upload: Upload, chunks: AsyncIterable[bytes], *, hashed: bool) -> None:
    """Each chunk is written, and hashed beside that, while the next one is on its way."""
    pending: asyncio.Future[Any] | None = None
    try:
        async for chunk in chunks:
            if pending is not None:
                await pending
            steps = [_below_path(upload.write, chunk), *([_below_path(upload.hash, chunk)] if hashed else [])]
            pending = asyncio.gather(*steps)
        if pending is not None:
            await pending
    except BaseException:
        if pending is not None:
            pending.cancel()
            # one error is enough to tell; its steps may be done, and it not yet: then it is not cancelled
            pending.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise


async def _below_path(work: Callable[..., T], *args: object) -> T:
    """Run blocking work on a client's path in a thread, OSError as what the client is told."""
    try:
        return await asyncio.to_thread(work, *args)
    except OSError as error:
        raise told(error) from error


def _close_unread(opening: asyncio.Future[Reading]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
