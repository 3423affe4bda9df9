"""From a session's folders to objects, and from an index to folders: the blocking steps, each for a thread."""

from __future__ import annotations

import os
from dataclasses import replace

import structlog

from dataproc.errors import InvalidParams
from dataproc.storage.folders import Tree
from dataproc.storage.object_store.index import Index, KeptFile, KeptFolder, KeptLink, Signature, signature, unlocked
from dataproc.storage.object_store.objects import CHUNK, Objects
from dataproc.storage.paths import make_parents, open_regular, opened_beneath, opened_folder

_log = structlog.get_logger("dataproc.storage")


def put(
    objects: Objects, tree: Tree, names: tuple[str, ...], key: str, owner: int | None
) -> tuple[KeptFile, Signature, str] | None:
    """Put a file: as it is kept, as it was, and its version if the store tells that at once.

    None for one that is gone, or is no file any more. Raises StorageUnavailable, OSError.
    """
    with opened_folder(tree.files.parent) as top:
        try:
            fd = open_regular(top, names, owner)
        except PermissionError:
            return _put_closed(objects, top, names, key)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, InvalidParams) as error:
            _log.info("storage.file_not_kept", reason=type(error).__name__)
            return None
        try:
            found = os.fstat(fd)  # before it is read: a write meanwhile makes the next commit put it again
            kept, version = _put(objects, fd, found, key)
            return kept, signature(found), version
        finally:
            os.close(fd)


def _put(objects: Objects, fd: int, found: os.stat_result, key: str) -> tuple[KeptFile, str]:
    size, sha256, version = objects.upload(key, fd, found.st_size)
    return KeptFile(key, size, found.st_mode & 0o777, found.st_mtime_ns, sha256), version


def _put_closed(objects: Objects, top: int, names: tuple[str, ...], key: str) -> tuple[KeptFile, Signature, str]:
    """The same for a file that a module closed by its mode, to a server that is no root."""
    with unlocked(top, names, os.O_RDONLY) as fd:
        found, twin = os.fstat(fd), os.dup(fd)
        try:
            kept, version = _put(objects, fd, found, key)
        except BaseException:
            os.close(twin)
            raise
    try:
        after = os.fstat(twin)  # its mode is what it was
        seen = (found.st_ino, found.st_size, found.st_mtime_ns, after.st_ctime_ns)
        return replace(kept, mode=after.st_mode & 0o777), seen, version
    finally:
        os.close(twin)


def make_places(tree: Tree, index: Index, owner: int | None) -> None:
    """The folders of an index, and its files, empty."""
    with opened_folder(tree.files.parent) as top:
        for path, kept in index.entries.items():
            if isinstance(kept, KeptFolder):
                os.close(make_parents(top, path.split("/"), owner))
        for path, kept in index.entries.items():
            if isinstance(kept, KeptFile):
                os.close(opened_to_write(top, path, os.O_CREAT | os.O_TRUNC))


def fetch(objects: Objects, tree: Tree, path: str, kept: KeptFile, start: int) -> None:
    """Bring one part of a file, that from `start` on."""
    end = min(start + CHUNK, kept.size)
    view = memoryview(objects.part(kept.key, start, end))
    with opened_folder(tree.files.parent) as top:
        fd = opened_to_write(top, path)
    try:
        while view:
            written = os.pwrite(fd, view, start)
            view, start = view[written:], start + written
    finally:
        os.close(fd)


def finish(tree: Tree, index: Index, owner: int | None) -> dict[str, Signature]:
    """Owners, modes and times, when all bytes are there, and links last: nothing is written through them."""
    seen = {}
    with opened_folder(tree.files.parent) as top:
        for path, kept in index.entries.items():
            if isinstance(kept, KeptFile):
                seen[path] = _finished(top, path, kept, owner)
        for path, kept in index.entries.items():
            if isinstance(kept, KeptLink):
                *above, name = path.split("/")
                with opened_beneath(top, above) as parent:
                    os.symlink(kept.target, name, dir_fd=parent)
                    if owner is not None:
                        os.chown(name, owner, owner, dir_fd=parent, follow_symlinks=False)
        for path, kept in sorted(index.entries.items(), key=lambda entry: entry[0].count("/"), reverse=True):
            if isinstance(kept, KeptFolder):
                with opened_beneath(top, path.split("/"), os.O_RDONLY | os.O_DIRECTORY) as folder:
                    os.fchmod(folder, kept.mode)
    return seen


def opened_to_write(top: int, path: str, flags: int = 0) -> int:
    """A descriptor of a file of ours, in folders of ours; no link is followed to it. Raises OSError."""
    *above, name = path.split("/")
    with opened_beneath(top, above) as parent:
        return os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600, dir_fd=parent)


def _finished(top: int, path: str, kept: KeptFile, owner: int | None) -> Signature:
    fd = opened_to_write(top, path)
    try:
        if owner is not None:
            os.fchown(fd, owner, owner)
        os.fchmod(fd, kept.mode)
        os.utime(fd, ns=(kept.modified, kept.modified))
        return signature(os.fstat(fd))
    finally:
        os.close(fd)
