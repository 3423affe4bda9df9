"""What was deleted, until it is gone: a folder that nothing leads to but we.

A tree is moved here in one rename and taken apart in the background, also after a crash, at the next start. What is in
it was made by modules: folders without permissions, names that are no text, nests deeper than any path may be long.
So nothing is reached by a path: every folder is opened by its own name, and folders in it are moved up before they
are taken apart, so that no depth needs a longer path or more descriptors.
"""

from __future__ import annotations

import os
import stat
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog

from dataproc.storage.paths import opened_folder

_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_log = structlog.get_logger("dataproc.storage")


class Trash:
    """A folder of deleted trees, and the one thread that takes them apart. `folder` has to exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "trash")
        self._stop = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether background work should end."""
        return self._stop.is_set()

    def take(self, parent: int, name: str) -> None:
        """Move `name` of the open directory `parent` out of everybody's reach, and delete it later. Raises OSError."""
        with opened_folder(self._folder) as trash:
            taken = _moved(parent, name, trash)
        self.later(partial(self._delete, taken))

    def sweep(self) -> None:
        """Go on with what an earlier process left."""
        for name in os.listdir(self._folder):
            self.later(partial(self._delete, name))

    def close(self) -> None:
        """Stop after the file that is being deleted; `sweep` of the next start goes on."""
        self._stop.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def settle(self, within: float | None = None) -> None:
        """Wait until all that was taken is gone, or for so many seconds."""
        with suppress(TimeoutError):
            self._thread.submit(int).result(within)

    def later(self, work: Callable[[], object]) -> None:
        """Have a deletion done in the background; one that fails is tried again at the next start."""
        with suppress(RuntimeError):  # closed: the next start does it
            self._thread.submit(_attempted, work)

    def _delete(self, name: str) -> None:
        with opened_folder(self._folder) as trash:
            _delete_tree(trash, name, self._stop)


def _attempted(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:
        _log.warning("storage.deletion_failed", reason=f"{type(error).__name__}: {error}")


def _delete_tree(trash: int, name: str, stop: threading.Event) -> None:
    """Delete `name` in the directory `trash`, which takes up its nested folders on the way."""
    todo = [name]
    while todo and not stop.is_set():
        nested = _emptied(trash, todo[-1], stop)
        todo.extend(nested)
        if not nested and not stop.is_set():
            _remove_folder(trash, todo.pop())


def _remove_folder(trash: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=trash)
    except FileNotFoundError:
        pass  # a file, or another server on this storage was quicker
    except (
        OSError
    ) as error:  # something in it resists (immutable, say): the rest goes on, and the next start tries again
        _log.warning("storage.trash_left", errno=error.errno, reason=error.strerror)


def _emptied(trash: int, name: str, stop: threading.Event) -> list[str]:
    """Unlink what is in the folder `name`; its folders that are not empty are moved up: their new names."""
    try:
        fd = _opened(trash, name)
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        os.unlink(name, dir_fd=trash)
        return []
    nested = []
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                if stop.is_set():
                    break
                if not _removed(fd, entry):
                    with suppress(OSError):
                        nested.append(_moved(fd, entry.name, trash))
    finally:
        os.close(fd)
    return nested


def _removed(folder: int, entry: os.DirEntry[str]) -> bool:
    """Whether it is gone; a folder that is not empty stays."""
    if not entry.is_dir(follow_symlinks=False):
        with suppress(OSError):
            os.unlink(entry.name, dir_fd=folder)
        return True
    try:
        os.rmdir(entry.name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _moved(parent: int, name: str, trash: int) -> str:
    fresh = uuid.uuid4().hex
    try:
        os.rename(name, fresh, src_dir_fd=parent, dst_dir_fd=trash)
    except PermissionError:
        # moving a folder writes its `..`, which its own mode may forbid
        os.close(_opened(parent, name))
        os.rename(name, fresh, src_dir_fd=parent, dst_dir_fd=trash)
    return fresh


def _opened(parent: int, name: str) -> int:
    """A descriptor of the folder `name`, made readable and writable first where a module took that away."""
    pinned = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if stat.S_IMODE(os.fstat(pinned).st_mode) & 0o700 != 0o700:
            os.chmod(
                f"/proc/self/fd/{pinned}", 0o700
            )  # the pinned folder itself: a link in its place is never followed
        return os.open(".", _READ, dir_fd=pinned)
    finally:
        os.close(pinned)
