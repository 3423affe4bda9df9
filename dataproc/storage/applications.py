"""Application folders on object storage: plain names, uploaded file by file; the last writer of a file wins."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dataproc.storage.backend import on_disk
from dataproc.storage.fetching import fetch_all
from dataproc.storage.folders import Folders, Tree
from dataproc.storage.index import Index, KeptFile, KeptFolder, Signature, scan, signature
from dataproc.storage.keeping import put
from dataproc.storage.objects import Objects
from dataproc.storage.paths import opened_folder
from dataproc.storage.publishing import remove
from dataproc.storage.together import alone, together


@dataclass(eq=False)
class _Application:
    """A folder that is here. seen: each file as it was when it was fetched or kept."""

    folder: Path
    seen: dict[str, Signature] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def tree(self) -> Tree:
        return Tree(self.folder, self.folder, self.folder)


class Applications:
    """The application folders that were used on this node since its start."""

    def __init__(self, objects: Objects, folders: Folders) -> None:
        self._objects = objects
        self._folders = folders
        self._here: dict[tuple[str, str], asyncio.Task[_Application]] = {}

    async def bring(self, key: str, module: str) -> Path:
        """The folder, with what other nodes have put into it before its first use here."""
        task = self._here.get((key, module))
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._here[key, module] = asyncio.create_task(self._fetched(key, module))
        return (await asyncio.shield(task)).folder

    def looker(self, named: tuple[str, str] | None) -> Callable[[], _Application | None]:
        """What looks, in a thread, whether a folder was changed: the one that is to be kept, or None."""
        task = None if named is None else self._here.get(named)
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return lambda: None
        application = task.result()
        return lambda: application if any(_survey(application)) else None

    async def keep(self, application: _Application) -> None:
        """Put what was changed in the folder. Raises StorageUnavailable."""
        async with application.lock:
            await self._kept(application)

    async def _fetched(self, key: str, module: str) -> _Application:
        folder = await on_disk(self._folders.application, key, module)
        application, top = _Application(folder), f"applications/{key}/"
        listed = await alone(self._objects.threads, self._objects.keys, f"{top}{module}")
        index = await asyncio.to_thread(_index, listed, len(top))
        application.seen = await fetch_all(self._objects, application.tree, index, self._folders.worker_uid)
        return application

    async def _kept(self, application: _Application) -> None:
        changed, gone = await on_disk(_survey, application)
        key = application.folder.parent.name
        puts = (partial(self._put, key, application, names) for names in changed)
        for path, seen in await together(self._objects.threads, puts):
            if seen is not None:
                application.seen[path] = seen
        if gone:
            await remove(self._objects, [f"applications/{key}/{path}" for path in gone])
            for path in gone:
                del application.seen[path]

    def _put(self, key: str, application: _Application, names: tuple[str, ...]) -> tuple[str, Signature | None]:
        path = "/".join(names)
        found = put(self._objects, application.tree, names, f"applications/{key}/{path}", self._folders.worker_uid)
        return path, None if found is None else found[1]


def _index(listed: dict[str, tuple[int, str]], cut: int) -> Index:
    """What the listed objects are as files of a folder."""
    index, now = Index(), time.time_ns()
    for key, (size, _) in sorted(listed.items()):
        path = key[cut:]
        above = path.split("/")[1:-1]
        for depth in range(1, len(above) + 1):
            folder = "/".join(path.split("/")[: depth + 1])
            index.entries.setdefault(folder, KeptFolder(0o700))
        index.entries[path] = KeptFile(key, size, 0o600, now)
    return index


def _survey(application: _Application) -> tuple[list[tuple[str, ...]], set[str]]:
    """The files that have to be put, and the paths of those that were there and are gone."""
    changed, there = [], set()
    with opened_folder(application.folder.parent) as top:
        for names, found, _ in scan(top, (application.folder.name,)):
            path = "/".join(names)
            if stat.S_ISREG(found.st_mode) and path.isprintable() and len(os.fsencode(path)) < 700:
                there.add(path)
                if application.seen.get(path) != signature(found):
                    changed.append(names)
    return changed, application.seen.keys() - there
