"""What keeps the workspaces' files: the port, and local storage, where the folders themselves are the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from dataproc.storage.folders import Folders, Tree
from dataproc.storage.paths import unavailable
from dataproc.storage.usage.counting import walked
from dataproc.types import Elsewhere, Usage

KNOWN = 8192  # sessions, and applications, whose folders are remembered to be there

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class Backend(Protocol):
    """Brings a session's files to local folders, and keeps them. All raise StorageUnavailable."""

    folders: Folders

    def known(self, session_id: str) -> Tree | None:
        """The session's folders if they are surely here, complete, and ours to change; without asking anybody."""
        ...

    async def elsewhere(self, session_id: str) -> Elsewhere | None:
        """Which other node has the session, where one has."""
        ...

    def on_left(self, act: Callable[[str], Awaitable[None]]) -> None:
        """What to do before a session's folders are taken away from this node, though the session lives on."""
        ...

    def enter(self, session_id: str, tree: Tree, application: tuple[str, str] | None) -> Awaitable[object] | None:
        """Somebody begins to work in the folders, when what is returned is done; `leave` follows in any case.

        application: key and module whose folder may be used, too.
        """
        ...

    def leave(self, session_id: str, tree: Tree, application: tuple[str, str] | None) -> None:
        """Who entered has left."""
        ...

    async def bring(self, session_id: str) -> Tree:
        """The session's folders on this machine, complete; new ones for a session without any files.

        Raises Conflict where another node has the session and goes on to have it.
        """
        ...

    async def commit(self, session_id: str, tree: Tree, application: tuple[str, str] | None = None) -> None:
        """Keep what was changed in the folders; when it returns, it outlives this process.

        application: key and module whose folder was at work, too. Raises Conflict where the session was lost to
        another node.
        """
        ...

    async def drop(self, session_id: str) -> None:
        """Put the session's files out of everybody's reach, and see to their deletion."""
        ...

    async def measured(self, session_id: str) -> Usage:
        """What a session takes, as far as that can be told without bringing it here."""
        ...

    async def application(self, key: str, module: str) -> Path:
        """The folder of a module that outlives the sessions of a key."""
        ...

    async def sweep(self) -> None:
        """Go on with what an earlier process left."""
        ...

    async def check(self) -> None:
        """Raises where the store cannot be written to."""
        ...

    async def settle(self) -> None:
        """Wait until the deletions that were begun are done."""
        ...

    def hurry(self, after: float) -> None:
        """The server stops: from `after` seconds on nobody waits for a store that does not answer."""
        ...

    async def close(self) -> None:
        """Stop what is done in the background."""
        ...


class LocalBackend:
    """Local storage: the session's folders are used in place, so there is nothing to bring or to commit."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self._known: dict[str, Tree] = {}
        self._applications: dict[tuple[str, str], Path] = {}

    def known(self, session_id: str) -> Tree | None:
        return self._known.get(session_id)

    async def elsewhere(self, session_id: str) -> Elsewhere | None:
        return None

    def on_left(self, act: Callable[[str], Awaitable[None]]) -> None:
        """They are never taken away."""

    def enter(self, session_id: str, tree: Tree, application: tuple[str, str] | None) -> None:
        """Nothing depends on it."""

    def leave(self, session_id: str, tree: Tree, application: tuple[str, str] | None) -> None:
        """Nothing depends on it."""

    async def bring(self, session_id: str) -> Tree:
        tree = await on_disk(self.folders.make, session_id)
        bounded(self._known, KNOWN)
        self._known[session_id] = tree
        return tree

    async def commit(self, session_id: str, tree: Tree, application: tuple[str, str] | None = None) -> None:
        if self.folders.fsync:
            await on_disk(self.folders.sync, session_id)

    async def drop(self, session_id: str) -> None:
        self._known.pop(session_id, None)
        await on_disk(self.folders.discard, session_id)

    async def measured(self, session_id: str) -> Usage:
        return await on_disk(walked, self.folders.tree(session_id))

    async def application(self, key: str, module: str) -> Path:
        found = self._applications.get((key, module))
        if found is None:
            found = await on_disk(self.folders.application, key, module)
            bounded(self._applications, KNOWN)
            self._applications[key, module] = found
        return found

    async def sweep(self) -> None:
        await on_disk(self.folders.sweep)

    async def check(self) -> None:
        await on_disk(self.folders.check)

    async def settle(self) -> None:
        await asyncio.to_thread(self.folders.trash.settle)

    def hurry(self, after: float) -> None:
        """It is a disk."""

    async def close(self) -> None:
        await asyncio.to_thread(self.folders.trash.close)


async def on_disk(work: Callable[..., T], *args: object) -> T:
    """Run blocking work in a thread, OSError as StorageUnavailable."""
    try:
        return await asyncio.to_thread(work, *args)
    except OSError as error:
        raise unavailable(error) from error


def bounded(remembered: dict[K, V], most: int) -> None:
    """Forget the oldest, so that there is room for one."""
    while len(remembered) >= most:
        del remembered[next(iter(remembered))]
