"""Quotas: what sessions may take, how much they do take, and who is told when it is too much.

One queue of kernel events serves all sessions that are in use or were so lately. While runs are under way the use is
looked at five times a second; at the end of a run it is looked at once more, which costs microseconds where little was
touched.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import structlog

from dataproc.errors import QuotaExceeded, StorageUnavailable
from dataproc.storage.folders import Tree
from dataproc.storage.paths import MAX_PATH, unavailable
from dataproc.storage.usage import inotify, unseen
from dataproc.storage.usage.counting import count_missing
from dataproc.storage.usage.key_sums import KeySums
from dataproc.storage.usage.limits import NOTHING, Limits, Watched, over, short_of
from dataproc.storage.usage.usages import MemoryUsages, Usages
from dataproc.storage.usage.watch import Watch
from dataproc.types import Usage

BUSY, IDLE = 0.2, 0.5  # seconds between looks: while runs are under way, and while none is
UNSEEN = 0.4  # seconds between searches for what events do not tell
INLINE = 32  # touched names that are looked at without a thread
WATCHED = 512  # sessions at once
MOST_WAITING = 100_000  # events of one session that wait to be taken in

T = TypeVar("T")
_log = structlog.get_logger("dataproc.storage")


class Quotas:
    """All sessions of this server. `root` is any folder on the disk of the storage."""

    def __init__(
        self, limits: Limits, root: os.PathLike[str], usages: Usages | None = None, *, noting: bool = False
    ) -> None:
        """usages: what is kept of sessions' use, for all nodes to see; by default nothing is.

        noting: whether watches keep what was touched, modes and times too, for who asks for it: then files are stored
        elsewhere, too, and count there, with their holes.
        """
        self._limits = limits
        self._root = root
        self._noting = noting
        self._queue = inotify.Inotify(noting)
        self._by_watch: dict[int, tuple[Watch, object]] = {}
        self._watched: OrderedDict[str, Watched] = OrderedDict()
        self._usages = usages or MemoryUsages()
        self.keys = KeySums(limits, self._usages)
        self._reading = threading.Lock()
        self._users = 0
        self._searched = 0.0
        self.on_over: Callable[[str, QuotaExceeded], None] = lambda session, error: None
        self.processes: Callable[[str], Iterable[int]] = lambda session: ()
        self.workers: Callable[[str], Iterable[int]] = lambda session: ()  # the idle ones, too
        self.measure: Callable[[str], Awaitable[Usage]] | None = None  # what a session takes that is not watched

    # -------------------------------------------------------------------------------------------------- watching

    async def watch(self, session: str, tree: Tree, key: str) -> Watched:
        """The session under watch; a first look walks it. Near free where it is watched already."""
        while True:
            found = self._watched.get(session)
            if found is None or (found.tree is not tree and found.tree != tree):
                found = await self._begin(session, tree, key)
            if key and not self.keys.knows(session):
                await self.keys.join(session, key, partial(_usage, found.watch))
            if self._watched.get(session) is found:  # others may have come, or made room, during the first look
                break
            self.keys.rest(session)
        found.key = key or found.key
        found.used_at = time.monotonic()
        self._watched.move_to_end(session)
        return found

    async def _begin(self, session: str, tree: Tree, key: str) -> Watched:
        if (old := self._watched.pop(session, None)) is not None:
            old.watch.end()
        self._make_room()
        found = Watched(session, key, tree, Watch(tree, self._queue, self._by_watch, self._noting))  # type: ignore[arg-type]
        found.used_at = time.monotonic()  # or who makes room for another session takes it for idle
        self._watched[session] = found
        found.tolerated = found.judged = await asyncio.to_thread(self._settled, found, _usage)
        found.before = found.judged.bytes
        if self._watched.get(session) is found:
            self.keys.count(session, found.judged)
        return found

    def find(self, session: str, tree: Tree) -> Watched | None:
        """The session, if these very folders of it are under watch."""
        found = self._watched.get(session)
        return found if found is not None and found.watch.is_of(tree) else None

    def _make_room(self) -> None:
        for session, found in list(self._watched.items()):
            idle = time.monotonic() - found.used_at > self._limits.idle
            if found.users or not (idle or len(self._watched) >= WATCHED):
                continue
            self.left(session)

    def drop(self, session: str) -> None:
        """The session's files are gone."""
        self.keys.drop(session)
        self._unwatch(session)

    def left(self, session: str) -> None:
        """The session's files are not here any more, or not in use."""
        self.keys.rest(session)
        self._unwatch(session)

    def _unwatch(self, session: str) -> None:
        if (found := self._watched.pop(session, None)) is not None:
            found.watch.end()

    async def usage(self, session: str, tree: Tree) -> Usage:
        """What a session takes now."""
        if session not in self._watched and not tree.files.is_dir():
            return NOTHING
        return await self.settled(await self.watch(session, tree, ""), _usage)

    # --------------------------------------------------------------------------------------------------- looking

    async def settled(self, found: Watched, act: Callable[[Watch], T]) -> T:
        """What `act` makes of what is known up to now: at once where little was touched, else in a thread."""
        self._drain()
        watch = found.watch
        much = watch.unsettled
        if much > INLINE or not watch.lock.acquire(blocking=False):
            return await asyncio.to_thread(self._settled, found, act)
        try:
            if much:
                watch.look()
            return act(watch)
        finally:
            watch.lock.release()

    def _settled(self, found: Watched, act: Callable[[Watch], T]) -> T:
        with found.watch.lock:
            self._drain()
            found.watch.look()
            return act(found.watch)

    def _drain(self) -> None:
        """Hand the kernel's events out."""
        with self._reading:
            for number, mask, name in self._queue.read():
                if mask & inotify.OVERFLOW:
                    self._lose()
                elif (known := self._by_watch.get(number)) is not None:
                    watch, folder = known
                    watch.inbox.append((folder, mask, name))  # type: ignore[arg-type]
                    if len(watch.inbox) > MOST_WAITING:
                        watch.inbox.clear()
                        watch.lost = True

    def _lose(self) -> None:
        _log.warning("storage.events_lost", sessions=len(self._watched))
        for found in list(self._watched.values()):
            found.watch.lost = True

    # ----------------------------------------------------------------------------------------------------- judging

    def exceeded(self, found: Watched) -> QuotaExceeded | None:
        """The quota that a session is above, and grows; it is told of once for each growth.

        Where nobody can look no growth is seen: of a directory too deep is told as long as anybody could write to it.
        """
        usage, limits, deep = found.watch.usage, self._limits, found.watch.too_deep
        if usage == found.judged and (deep is None or not (found.users or any(self.workers(found.session)))):
            return None
        self.keys.count(found.session, usage)
        mercy, before, found.judged = found.tolerated, found.judged, usage
        found.tolerated = Usage(min(mercy.bytes, usage.bytes), min(mercy.files, usage.files))
        error = None
        if deep is not None:
            error = over("session_depth", MAX_PATH, len(os.fsencode("/".join(deep))))
        elif usage.bytes > max(limits.session_bytes, mercy.bytes):
            error = over("session_bytes", limits.session_bytes, usage.bytes)
        elif usage.files > max(limits.session_files, mercy.files):
            error = over("session_files", limits.session_files, usage.files)
        elif usage.bytes > before.bytes or usage.files > before.files:
            error = self.keys.exceeded(found.key)
        if error is not None:
            found.tolerated = usage
        return error

    async def keep(self) -> None:
        """Until cancelled: look at the sessions in use, tell of those above a quota, and keep what all of them take."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look())
            group.create_task(self.keys.keep())
            if self.keys.limited and self.measure is not None:
                group.create_task(count_missing(self._usages, self.measure))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(BUSY if self._users else IDLE)
            if not self._watched:
                continue
            watched = list(self._watched.values())
            search = time.monotonic() - self._searched >= UNSEEN
            workers = {each: tuple(self.processes(each.session)) for each in watched if each.users} if search else {}
            try:
                full = await asyncio.to_thread(self._tick, watched, workers)
            except OSError as error:
                _log.warning("storage.watching_failed", errno=error.errno)
            else:
                self._judge(watched, full)

    def _tick(self, watched: list[Watched], workers: dict[Watched, tuple[int, ...]]) -> tuple[int, int] | None:
        """Look at them; how few bytes may be free, and are, where that is too few."""
        self._drain()
        for found, pids in workers.items():
            self._search(found, pids)
            self._searched = time.monotonic()
        for found in watched:
            if found.watch.unsettled:
                try:
                    self._settled(found, _usage)
                except OSError as error:  # one session's trouble is not the others'
                    _log.warning("storage.watching_failed", session_id=found.session, errno=error.errno)
            found.grown, found.before = found.watch.usage.bytes - found.before, found.watch.usage.bytes
        return short_of(self._root, self._limits, 0) if any(each.users and each.grown > 0 for each in watched) else None

    def _judge(self, watched: list[Watched], full: tuple[int, int] | None) -> None:
        """Only here and at the ends of runs, which is in one thread, or a run could end between judgement and word."""
        told = False
        for found in watched:
            if not found.users:
                found.watch.hidden = 0  # a search that began while there was a run may have come too late
            if self._watched.get(found.session) is found and (error := self.exceeded(found)) is not None:
                self._tell(found, error)
                told = True
        growing = [each for each in watched if each.users and each.grown > 0]
        if full is not None and growing and not told:
            self._tell(max(growing, key=lambda each: each.grown), over("free_space", *full))

    def _tell(self, found: Watched, error: QuotaExceeded) -> None:
        found.told, found.error = found.told + 1, error
        _log.warning("storage.quota_exceeded", session_id=found.session, **error.data)
        self.on_over(found.session, error)

    def _search(self, found: Watched, pids: Iterable[int]) -> None:
        hidden, mapped = unseen.look({each for pid in pids for each in unseen.tree_of(pid)}, found.tree)
        with found.watch.lock:
            found.watch.hidden = hidden
            for names in mapped:
                found.watch.touch(names)

    def enter(self, found: Watched) -> None:
        """A run or an upload begins."""
        found.users += 1
        self._users += 1

    def leave(self, found: Watched) -> None:
        """It has ended."""
        found.users -= 1
        self._users -= 1
        if not found.users:
            found.watch.hidden = 0

    async def close(self) -> None:
        """Have it noted what sessions take, and watch nothing any more."""
        with suppress(StorageUnavailable):
            await self.keys.note()
        for session in list(self._watched):
            self.drop(session)
        self._queue.close()

    async def counted(self, found: Watched) -> None:
        """What was just written or deleted counts for the key, before the next look."""
        with suppress(OSError):  # that look tells
            self.keys.count(found.session, await self.settled(found, _usage))

    def reserve(self, found: Watched, key: str, size: int) -> None:
        """An upload takes so many bytes more before it has its name; less than 0: it is over."""
        found.reserved += size
        self.keys.reserve(key, size)

    def require_room(self, found: Watched, more: Usage) -> None:
        """Raises QuotaExceeded where so much more does not fit, StorageUnavailable where the disk has no room."""
        usage, limits = found.watch.usage, self._limits
        wanted = Usage(usage.bytes + found.reserved + more.bytes, usage.files + more.files)
        if wanted.bytes > max(limits.session_bytes, usage.bytes):  # in the place of a larger file there is always room
            raise over("session_bytes", limits.session_bytes, wanted.bytes)
        if more.files > 0 and wanted.files > limits.session_files:
            raise over("session_files", limits.session_files, wanted.files)
        self.keys.count(found.session, usage)
        if error := self.keys.exceeded(found.key, Usage(self.keys.reserved(found.key) + more.bytes, more.files)):
            raise error
        if full := short_of(self._root, limits, more.bytes):
            raise unavailable(OSError(errno.ENOSPC, over("free_space", *full).message))  # no limit of the caller's


def _usage(watch: Watch) -> Usage:
    return watch.usage
