"""What keeps the workspaces' files: the port, and local storage, where the folders themselves are the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from dataproc.storage.folders import Folders, Tree
from dataproc.storage.paths import unavailable

T = TypeVar("T")


class Backend(Protocol):
    """Brings a session's files to local folders, and keeps them. All raise StorageUnavailable."""

    folders: Folders

    async def bring(self, session_id: str) -> Tree:
        """The session's folders on this machine, complete; new ones for a session without any files."""
        ...

    async def commit(self, session_id: str, tree: Tree) -> None:
        """Keep what was changed in the folders; when it returns, it outlives this process."""
        ...

    async def drop(self, session_id: str) -> None:
        """Put the session's files out of everybody's reach, and see to their deletion."""
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

    async def close(self) -> None:
        """Stop what is done in the background."""
        ...


class LocalBackend:
    """Local storage: the session's folders are used in place, so there is nothing to bring or to commit."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders

    async def bring(self, session_id: str) -> Tree:
        return await on_disk(self.folders.make, session_id)

    async def commit(self, session_id: str, tree: Tree) -> None:
        if self.folders.fsync:
            await on_disk(self.folders.sync, session_id)

    async def drop(self, session_id: str) -> None:
        await on_disk(self.folders.discard, session_id)

    async def application(self, key: str, module: str) -> Path:
        return await on_disk(self.folders.application, key, module)

    async def sweep(self) -> None:
        await on_disk(self.folders.sweep)

    async def check(self) -> None:
        await on_disk(self.folders.check)

    async def settle(self) -> None:
        await asyncio.to_thread(self.folders.trash.settle)

    async def close(self) -> None:
        await asyncio.to_thread(self.folders.trash.close)


async def on_disk(work: Callable[..., T], *args: object) -> T:
    """Run blocking work in a thread, OSError as StorageUnavailable."""
    try:
        return await asyncio.to_thread(work, *args)
    except OSError as error:
        raise unavailable(error) from error
