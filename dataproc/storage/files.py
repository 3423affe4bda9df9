"""Operations on the files of one session: blocking, by descriptors, confined by `storage.paths`."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from dataproc.errors import InvalidParams, PreconditionFailed
from dataproc.storage.folders import Folders, Tree
from dataproc.storage.paths import RelPath, open_regular, opened_beneath, opened_folder

_SHARE = 2**26  # bytes that one thread sends before it looks up
RENAMING = threading.Lock()  # between looking at what a condition names, and the rename


@dataclass(frozen=True, slots=True)
class Absent:
    """Only where nothing is there yet."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Only over a file with one of these ETags; none of them: over any file."""

    tags: frozenset[str]


Condition = Absent | Matches | None
Kind = Literal["file", "directory", "link", "other"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies at a path. size: bytes, of files alone. modified: nanoseconds since 1970, UTC."""

    path: str
    type: Kind
    size: int
    modified: int
    etag: str

    @classmethod
    def of(cls, path: str, found: os.stat_result) -> Entry:
        """From what the disk says."""
        kind: Kind = _KINDS.get(stat.S_IFMT(found.st_mode), "other")
        return cls(path, kind, found.st_size if kind == "file" else 0, found.st_mtime_ns, etag_of(found))


_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
}


def etag_of(found: os.stat_result) -> str:
    """A strong ETag, quotes included. The change time is in it, which no module can set back."""
    identity = f"{found.st_ino}.{found.st_size}.{found.st_mtime_ns}.{found.st_ctime_ns}"
    return f'"{hashlib.blake2b(identity.encode(), digest_size=12).hexdigest()}"'


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was put: `created` where none was there before."""

    entry: Entry
    created: bool


class Reading:
    """A regular file, open for reading: what it was when it was opened stays readable."""

    def __init__(self, fd: int, entry: Entry) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self.entry = entry

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer only at the end. Raises OSError, also once it is closed."""
        with self._lock:
            return os.pread(self._fd, size, offset)

    def lies_at(self, place: str) -> bool:
        """Whether the file was reached by this real path, and so by no link."""
        with self._lock:
            return os.readlink(f"/proc/self/fd/{self._fd}") == place

    def push(self, out: int, offset: int, end: int) -> int:
        """Send bytes from `offset` on to a socket, as many as it takes now, or a share; up to where it came.

        Raises OSError, and EOFError where the file has become shorter than `end`.
        """
        share = min(end, offset + _SHARE)
        with self._lock:
            while offset < share:
                try:
                    sent = os.sendfile(out, self._fd, offset, share - offset)
                except BlockingIOError:
                    break
                if not sent:
                    raise EOFError("the file became shorter while it was sent")
                offset += sent
        return offset

    def close(self) -> None:
        """Waits for a read under way in another thread, as its descriptor may soon be another file's."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Files:
    """The files of one session."""

    def __init__(self, folders: Folders, tree: Tree) -> None:
        self.folders = folders
        self.tree = tree

    def stat(self, path: RelPath) -> Entry:
        """What lies at a path, a link inside the directory followed."""
        with opened_folder(self.tree.files) as root, opened_beneath(root, path.names, os.O_PATH) as fd:
            found = Entry.of(str(path), os.fstat(fd))
        if path.directory and found.type != "directory":
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return found

    def read(self, path: RelPath) -> Reading:
        """A regular file, opened."""
        try:
            with opened_folder(self.tree.files) as root:
                fd = open_regular(root, path.names, self.folders.worker_uid)
        except IsADirectoryError:
            raise InvalidParams.field("path", "is a directory; written with a / at its end, it is listed") from None
        return Reading(fd, Entry.of(str(path), os.fstat(fd)))

    def room(self, path: RelPath) -> tuple[int, int]:
        """The bytes of the file that an upload to a path replaces, and how many of its names are missing."""
        flags = os.O_PATH | os.O_NOFOLLOW  # in the place of a link, it replaces the link alone
        with suppress(OSError), opened_folder(self.tree.files) as root:
            for missing in range(len(path.names)):
                with suppress(OSError), opened_beneath(root, path.names[: len(path.names) - missing], flags) as fd:
                    return (0 if missing else Entry.of("", os.fstat(fd)).size), missing
        return 0, len(path.names)

    def delete(self, path: RelPath, condition: Condition, recursive: bool) -> None:
        """Unlink a file or a link; move a directory to the trash if `recursive`."""
        if not path.names:
            raise InvalidParams.field(
                "path", "is the session directory itself; delete what is in it, or close the session"
            )
        name = path.names[-1]
        with opened_folder(self.tree.files) as root, opened_beneath(root, path.names[:-1]) as parent, RENAMING:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            require(condition, behind(root, path.names, found))
            if stat.S_ISDIR(found.st_mode):
                self._delete_folder(parent, name, recursive)
            elif path.directory:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            else:
                os.unlink(name, dir_fd=parent)

    def _delete_folder(self, parent: int, name: str, recursive: bool) -> None:
        if not recursive:
            raise InvalidParams.field("recursive", "the path is a directory, which is deleted only with recursive=true")
        self.folders.trash.take(parent, name)


def behind(root: int, names: Sequence[str], found: os.stat_result) -> os.stat_result:
    """What clients are told of what was found at `names` beneath `root`: of a link to a file inside, that file."""
    if stat.S_ISLNK(found.st_mode):
        with suppress(OSError), opened_beneath(root, names, os.O_PATH) as fd:
            if stat.S_ISREG((target := os.fstat(fd)).st_mode):
                return target
    return found


def require(condition: Condition, found: os.stat_result | None) -> None:
    """Raises PreconditionFailed where what was found is not what the condition names."""
    match condition:
        case Absent() if found is not None:
            raise PreconditionFailed("there is a file of that name already")
        case Matches() if found is None:
            raise PreconditionFailed("there is no file of that name")
        case Matches(tags) if tags and found is not None and etag_of(found) not in tags:
            raise PreconditionFailed("the file was changed meanwhile", etag=etag_of(found))
