"""Application folders on object storage: plain names, uploaded file by file; the last writer of a file wins.

What other nodes put is looked for when runs begin, and taken over while no run of this node is at work in the folder:
a file that is open for writing must not lose its name.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog

from dataproc.clock import Clock
from dataproc.errors import DataprocError
from dataproc.storage.backend import on_disk
from dataproc.storage.folders import Folders
from dataproc.storage.object_store.application import Application, Staged, index_of, staged, survey, take_over
from dataproc.storage.object_store.fetching import fetch_all
from dataproc.storage.object_store.index import Signature
from dataproc.storage.object_store.keeping import put
from dataproc.storage.object_store.objects import Objects
from dataproc.storage.object_store.publishing import remove
from dataproc.storage.object_store.together import alone, put_all

FRESH = 5.0  # seconds after a look within which there is no other
STALE = 60.0  # seconds after which a run waits for the look ...
PATIENCE = 2.0  # ... for so long

Named = tuple[str, str]  # key and module
_log = structlog.get_logger("dataproc.storage")


class Applications:
    """The application folders that were used on this node since its start."""

    def __init__(self, objects: Objects, folders: Folders, clock: Clock) -> None:
        self._objects, self._folders, self._clock = objects, folders, clock
        self._here: dict[Named, asyncio.Task[Application]] = {}
        self._users: Counter[Named] = Counter()
        self._waiting: Counter[Named] = Counter()
        self._taking: set[Named] = set()
        self._looks: dict[Named, asyncio.Task[None]] = {}
        self._staged: dict[Named, Staged] = {}

    async def bring(self, key: str, module: str) -> Path:
        """The folder, with what other nodes have put into it before its first use here."""
        task = self._here.get((key, module))
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._here[key, module] = asyncio.create_task(self._fetched(key, module))
        return (await asyncio.shield(task)).folder

    def enter(self, named: Named) -> Awaitable[object] | None:
        """A run that may use the folder begins, when what is returned is done."""
        self._users[named] += 1
        application = self._of(named)
        if application is None:
            return None
        look, age = self._looks.get(named), self._clock.monotonic() - application.looked
        if look is None and age >= FRESH:
            look = self._begin(named, self._look(named, application))
            if age >= STALE:
                return self._waited(named, look)
        return self._waited(named, look) if look is not None and named in self._taking else None

    def leave(self, named: Named) -> None:
        """It has ended."""
        self._users[named] -= 1
        if self._users[named]:
            return
        del self._users[named]
        application = self._of(named)
        if application is not None and named in self._staged and named not in self._looks:
            self._begin(named, self._take_over(named, application))

    def looker(self, named: Named | None) -> Callable[[], Application | None]:
        """What looks, in a thread, whether a folder was changed: the one that is to be kept, or None."""
        application = None if named is None else self._of(named)
        if application is None:
            return lambda: None
        return lambda: application if any(survey(application)) else None

    async def keep(self, application: Application) -> None:
        """Put what was changed in the folder. Raises StorageUnavailable."""
        async with application.lock:
            await self._kept(application)

    async def close(self) -> None:
        """Look no more."""
        for look in list(self._looks.values()):
            look.cancel()
        if self._looks:
            await asyncio.wait(set(self._looks.values()))

    def _of(self, named: Named) -> Application | None:
        task = self._here.get(named)
        gone = task is None or not task.done() or task.cancelled() or task.exception() is not None
        return None if gone or task is None else task.result()

    async def _fetched(self, key: str, module: str) -> Application:
        folder = await on_disk(self._folders.application, key, module)
        application = Application(folder, looked=self._clock.monotonic())
        listed = await self._listed(application)
        index = await asyncio.to_thread(index_of, listed, len(application.prefix))
        owner = self._folders.worker_uid
        application.seen = await fetch_all(self._objects, application.tree, index, owner)
        application.versions = {path: listed[application.prefix + path][1] for path in application.seen}
        return application

    async def _listed(self, application: Application) -> dict[str, tuple[int, str]]:
        place = f"{application.prefix}{application.folder.name}"
        return await alone(self._objects.threads, self._objects.keys, place)

    # ------------------------------------------------------------------------------------------------- from others

    def _begin(self, named: Named, work: Awaitable[None]) -> asyncio.Task[None]:
        async def logged() -> None:
            try:
                await work
            except (DataprocError, OSError) as error:
                _log.warning("storage.application_not_looked_at", module=named[1], reason=str(error))
            finally:
                del self._looks[named]

        self._looks[named] = task = asyncio.create_task(logged())
        return task

    async def _waited(self, named: Named, look: asyncio.Task[None]) -> None:
        """A run that waits is not at work yet."""
        self._waiting[named] += 1
        try:
            await asyncio.wait([look], timeout=PATIENCE)
            if named in self._taking:
                await asyncio.wait([look])
        finally:
            self._waiting[named] -= 1

    async def _look(self, named: Named, application: Application) -> None:
        application.looked = self._clock.monotonic()
        if named not in self._staged:
            before = dict(application.versions)
            listed = await self._listed(application)
            found = await staged(application, before, listed, self._objects, self._folders.worker_uid)
            if found is None:
                return
            self._staged[named] = found
        await self._take_over(named, application)

    async def _take_over(self, named: Named, application: Application) -> None:
        """Take what is staged into the folder, if nobody is at work in it: else who ends last does."""
        async with application.lock:
            if self._users[named] > self._waiting[named]:
                return
            self._taking.add(named)
            try:
                found = self._staged.pop(named)
                await on_disk(take_over, application, found, self._folders.worker_uid)
            finally:
                self._taking.discard(named)

    # --------------------------------------------------------------------------------------------------- to others

    async def _kept(self, application: Application) -> None:
        changed, gone = await on_disk(survey, application)
        puts = [(size, partial(self._put, application, names)) for names, size in changed.items()]
        for path, found in await put_all(self._objects, puts):
            if found is not None:
                application.seen[path], application.versions[path] = found
        if gone:
            await remove(self._objects, [application.prefix + path for path in gone])
            for path in gone:
                del application.seen[path]
                application.versions.pop(path, None)

    def _put(self, application: Application, names: tuple[str, ...]) -> tuple[str, tuple[Signature, str] | None]:
        path = "/".join(names)
        key = application.prefix + path
        found = put(self._objects, application.tree, names, key, self._folders.worker_uid)
        return path, None if found is None else (found[1], found[2] or self._objects.version(key))
