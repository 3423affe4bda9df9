"""A directory as one zip or tar.gz, made while it is sent: nothing is held whole, neither files nor their list.

What is in the directory was made by modules: links are left out, never followed; what is no regular file is left out;
and the holes of a sparse file cost neither reading nor room (tar keeps them as holes, in a zip they are a few bytes
that stand for many).
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
import threading
import zlib
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from dataproc.storage.files import Files
from dataproc.storage.listing import Pattern
from dataproc.storage.paths import OWN_PREFIX, RelPath, opened_beneath, opened_folder
from dataproc.storage.zipping import Zip

Kind = Literal["zip", "tar.gz"]
LEVEL = 1  # of compression: a transfer should not wait for it
_READ = 2**20
_EMIT = 2**18  # bytes that are worth a thread's time
_BLOCK = 512
_MOST_EXTENTS = 10_000  # of one file; the rest of it is read through
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One entry: `names` below the archived directory, what it was when it was opened; a file has a descriptor."""

    names: Names
    found: os.stat_result
    fd: int | None


class Archive:
    """The bytes of an archive, one piece after the other, from any thread."""

    def __init__(self, files: Files, path: RelPath, kind: Kind, glob: str | None) -> None:
        """glob: as for listings. Raises OSError where there is no such directory, InvalidParams for a bad pattern."""
        with opened_folder(files.tree.files) as root:
            os.close(_opened(root, path.names))
        pattern = Pattern(glob) if glob else None
        members = _members(files, path.names, pattern)
        self._pieces = _gathered(_zipped(members) if kind == "zip" else _tarred(members))
        self._lock = threading.Lock()

    def read(self) -> bytes:
        """The next piece; empty at the end. Raises OSError."""
        with self._lock:
            return next(self._pieces, b"")

    def close(self) -> None:
        """Let go of what is open; waits for a `read` under way in another thread."""
        with self._lock:
            self._pieces.close()


def _gathered(pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _EMIT:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    if size:
        yield b"".join(waiting)


# ------------------------------------------------------------------------------------------------------ the walk


def _members(files: Files, top: Names, pattern: Pattern | None) -> Iterator[Member]:
    """Every regular file below `top`, opened in turn, and directories that hold nothing."""
    todo: list[Names] = [()]
    with opened_folder(files.tree.files) as root:
        while todo:
            below = todo.pop()
            with suppress(OSError):  # removed meanwhile, or closed by its mode
                yield from _of_folder(files, root, top, below, todo, pattern)


def _of_folder(
    files: Files, root: int, top: Names, below: Names, todo: list[Names], pattern: Pattern | None
) -> Iterator[Member]:
    folder, empty = _opened(root, top + below), True
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                empty, names = False, (*below, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    if top + names != (OWN_PREFIX,):
                        todo.append(names)
                elif entry.is_file(follow_symlinks=False) and (pattern is None or pattern.matches(names)):
                    yield from _of_file(files, folder, names)
        if empty and below and pattern is None:
            yield Member(below, os.fstat(folder), None)
    finally:
        os.close(folder)


def _of_file(files: Files, folder: int, names: Names) -> Iterator[Member]:
    try:
        fd = os.open(names[-1], _OPEN, dir_fd=folder)
    except OSError:
        return
    try:
        found, owner = os.fstat(fd), files.folders.worker_uid
        if stat.S_ISREG(found.st_mode) and (found.st_nlink == 1 or owner in (None, found.st_uid)):
            yield Member(names, found, fd)
    finally:
        os.close(fd)


def _opened(root: int, names: Names) -> int:
    """The directory `names` beneath `root`; links above the archived one may be followed, as in any request."""
    with opened_beneath(root, names, _FOLDER) as fd:
        return os.dup(fd)


def _extents(fd: int, size: int) -> list[tuple[int, int]]:
    """Where there is data in the first `size` bytes, as (offset, length); the rest is holes."""
    found: list[tuple[int, int]] = []
    at = 0
    try:
        while at < size and len(found) < _MOST_EXTENTS:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            if start < size:
                found.append((start, at - start))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a hole to the end
            return found
    return [*found, (at, size - at)] if at < size else found


def _data(fd: int, start: int, length: int) -> Iterator[bytes]:
    """Exactly so many bytes: what was cut off meanwhile is zeros, as the size has been told already."""
    while length:
        piece = os.pread(fd, min(_READ, length), start) or bytes(min(_READ, length))
        start, length = start + len(piece), length - len(piece)
        yield piece


# --------------------------------------------------------------------------------------------------- the formats


def _zipped(members: Iterator[Member]) -> Iterator[bytes]:
    with Zip(LEVEL) as archive:
        for member in members:
            name, moment = "/".join(member.names), member.found.st_mtime
            if member.fd is None:
                yield from archive.folder(name, moment)
                continue
            yield archive.begin(name, moment, member.found.st_size, member.found.st_mode)
            at = 0
            for start, length in _extents(member.fd, member.found.st_size):
                yield from archive.zeros(start - at)
                for piece in _data(member.fd, start, length):
                    yield archive.add(piece)
                at = start + length
            yield from archive.zeros(member.found.st_size - at)
            yield archive.end()
        yield from archive.finish()


def _tarred(members: Iterator[Member]) -> Iterator[bytes]:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    for member in members:
        for piece in _tar_member(member):
            yield packer.compress(piece)
    yield packer.compress(bytes(2 * _BLOCK))
    yield packer.flush()


def _tar_member(member: Member) -> Iterator[bytes]:
    info = tarfile.TarInfo("/".join(member.names))
    info.mtime, info.mode = int(member.found.st_mtime), stat.S_IMODE(member.found.st_mode) & 0o777
    if member.fd is None:
        info.type = tarfile.DIRTYPE
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        return
    size = member.found.st_size
    extents = _extents(member.fd, size)
    told = b""
    if sum(length for _, length in extents) < size:  # with holes: GNU's format 1.0, the map before the data
        numbers = [len(extents) + 1, *(part for extent in extents for part in extent), size, 0]
        told = _padded("".join(f"{number}\n" for number in numbers).encode())
        name, info.name = info.name, f"GNUSparseFile.0/{member.names[-1]}"
        version = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        info.pax_headers = {**version, "GNU.sparse.name": name, "GNU.sparse.realsize": str(size)}
    info.size = len(told) + sum(length for _, length in extents)
    yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + told
    for start, length in extents:
        yield from _data(member.fd, start, length)
    yield bytes(-info.size % _BLOCK)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _BLOCK)
