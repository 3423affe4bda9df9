"""From a client's path to an open descriptor: the only place where that is done.

Modules own what lies in a session directory and may plant links, or swap a folder for a link while a request is under
way. So nothing here checks a path first and opens it afterwards: the kernel resolves it beneath an open directory
(openat2 with RESOLVE_BENEATH), or, where it cannot, every name is opened by itself without following links. Links that
stay inside are followed; links that leave fail, before anything outside has been looked at.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache

from dataproc.errors import Conflict, DataprocError, InvalidParams, NotFound, StorageUnavailable

MAX_NAME = 255  # bytes, the kernel's
MAX_PATH = 4095  # bytes, the kernel's without its closing NUL
OWN_PREFIX = ".dataproc"  # what dataproc itself leaves in a session directory
FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC  # a directory as the place of others

_MAX_LINKS = 40  # the kernel's
_OPENAT2 = 437  # the same number on every architecture that Python runs on
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08


@dataclass(frozen=True, slots=True)
class RelPath:
    """A client's path that has been read: names without `/`, `.` or `..`; no names is the session directory itself.

    directory: it was written with a `/` at its end, or is empty.
    """

    names: tuple[str, ...]
    directory: bool = False

    def __str__(self) -> str:
        return "/".join(self.names)

    @property
    def own(self) -> bool:
        """Whether it lies under the prefix that is dataproc's."""
        return self.names[:1] == (OWN_PREFIX,)


def read_path(text: str) -> RelPath:
    """The path that `text` writes; InvalidParams says what is wrong with it."""
    if "\0" in text:
        raise _refused("holds a NUL")
    if text.startswith("/"):
        raise _refused("is absolute; paths are relative to the session directory")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _refused("is not UTF-8") from None
    if size > MAX_PATH:
        raise _refused(f"is {size} bytes long, above the limit of {MAX_PATH}")
    directory = text == "" or text.endswith("/")
    names = tuple(text.removesuffix("/").split("/")) if text else ()
    for name in names:
        _check_name(name)
    return RelPath(names, directory)


def decode_path(raw: bytes) -> RelPath:
    """The path in bytes that came off the wire, percent-encoding undone."""
    try:
        return read_path(raw.decode())
    except UnicodeDecodeError:
        raise _refused("is not UTF-8") from None


def _check_name(name: str) -> None:
    if name == "":
        raise _refused("has an empty name in it (two slashes in a row)")
    if name == "..":
        raise _refused("has '..' in it")
    if name == ".":
        raise _refused("has '.' in it")
    if len(name.encode()) > MAX_NAME:
        raise _refused(f"has a name above the limit of {MAX_NAME} bytes in it")


def _refused(why: str) -> InvalidParams:
    return InvalidParams.field("path", why)


class _How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_libc = ctypes.CDLL(None, use_errno=True)


def kernel_open(root: int, names: Sequence[str], flags: int) -> int:
    """A descriptor of what `names` lead to beneath the directory `root`, by the kernel, in one step. Raises OSError."""
    path = os.fsencode("/".join(names) or ".")
    how = _How(flags | os.O_CLOEXEC, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    for _ in range(128):
        opened: int = _libc.syscall(_OPENAT2, root, path, ctypes.byref(how), ctypes.sizeof(how))
        if opened >= 0:
            return opened
        # EAGAIN: something was renamed while the kernel followed a `..` of a link, and it could not be sure
        if (code := ctypes.get_errno()) not in (errno.EAGAIN, errno.EINTR):
            break
    raise _os_error(code)


def walking_open(root: int, names: Sequence[str], flags: int) -> int:
    """The same for kernels without openat2: name by name, each link read and then walked like the rest."""
    todo, links = list(names), 0
    while links <= _MAX_LINKS:
        match _walk(root, todo, flags):
            case int(opened):
                return opened
            case todo, followed:
                links += followed
    raise _os_error(errno.ELOOP)


def _walk(root: int, todo: list[str], flags: int) -> int | tuple[list[str], int]:
    """A descriptor; or, at a link or the `..` of a link, what to walk instead from the root, and how many links."""
    here = os.open(".", FOLDER, dir_fd=root)
    try:
        for at, name in enumerate(todo):
            if name == "..":
                if at == 0:
                    raise _os_error(errno.EXDEV)
                return todo[: at - 1] + todo[at + 1 :], 0
            last = at == len(todo) - 1
            if not (last and flags & os.O_NOFOLLOW) and (target := _link_target(here, name)) is not None:
                return todo[:at] + _parts(target) + todo[at + 1 :], 1
            if last:
                return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            below = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        return os.open(".", flags | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


def _link_target(folder: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def _parts(target: str) -> list[str]:
    if target.startswith("/"):
        raise _os_error(errno.EXDEV)
    return [part for part in target.split("/") if part not in ("", ".")]


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@cache
def has_openat2() -> bool:
    """Whether the kernel, and the filter that we may run under, know openat2."""
    root = os.open("/", FOLDER)
    try:
        os.close(kernel_open(root, (), FOLDER))
    except OSError:
        return False
    finally:
        os.close(root)
    return True


def open_beneath(root: int, names: Sequence[str], flags: int) -> int:
    """A descriptor of what `names` lead to beneath `root`. Raises OSError: EXDEV or ELOOP where they leave."""
    return kernel_open(root, names, flags) if has_openat2() else walking_open(root, names, flags)


@contextmanager
def opened_folder(folder: str | os.PathLike[str]) -> Iterator[int]:
    """A descriptor of a folder of our own, the last name of which must be no link."""
    fd = os.open(folder, FOLDER | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened_beneath(root: int, names: Sequence[str], flags: int = FOLDER) -> Iterator[int]:
    """A descriptor of what lies beneath `root`; by default of a directory, good for the `dir_fd` of other calls."""
    fd = open_beneath(root, names, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def open_regular(root: int, names: Sequence[str], owner: int | None = None) -> int:
    """A descriptor to read a regular file from; never waits, as on a FIFO. Raises OSError and InvalidParams.

    owner: the uid of workers where it is not our own. A hard link to what that uid does not own cannot come from
    a worker's own work, and is refused.
    """
    fd = open_beneath(root, names, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and (found.st_nlink == 1 or owner in (None, found.st_uid)):
        return fd
    os.close(fd)
    raise _os_error(errno.EISDIR) if stat.S_ISDIR(found.st_mode) else _refused("is no regular file")


def make_parents(root: int, names: Sequence[str], owner: int | None = None) -> int:
    """A descriptor of the directory `names` beneath `root`, made (and given to `owner`) as far as it is missing."""
    try:
        return open_beneath(root, names, FOLDER)
    except FileNotFoundError:
        pass
    above = open_beneath(root, (), FOLDER)
    for upto in range(1, len(names) + 1):
        try:
            below = _made(root, above, names[:upto], owner)
        finally:
            os.close(above)
        above = below
    return above


def _made(root: int, above: int, names: Sequence[str], owner: int | None) -> int:
    try:
        return open_beneath(root, names, FOLDER)
    except FileNotFoundError:
        with suppress(FileExistsError):  # by a neighbour's upload, or a link that leads nowhere
            os.mkdir(names[-1], 0o700, dir_fd=above)
    fd = open_beneath(root, names, os.O_RDONLY | os.O_DIRECTORY)
    if owner is not None:
        os.fchown(fd, owner, owner)
    return fd


_LEAVES = frozenset({errno.EXDEV, errno.ELOOP})
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})


def told(error: OSError) -> DataprocError:
    """What the caller is told about a failure below a client's path: never the server's path, nor what a link hides."""
    code = error.errno
    if code in _LEAVES:
        return _refused("leads out of the session directory by a link, or through too many links")
    if code == errno.ENOENT:
        return NotFound("there is no such file in the session directory")
    if code == errno.ENOTDIR:
        return NotFound("there is no such file in the session directory: a name on the way is no directory")
    if code in (errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY):
        return Conflict("there is a directory of that name")
    if code in _FORBIDDEN:
        return _refused("is closed to the server by the mode that a module gave to it")
    if code == errno.ENAMETOOLONG:
        return _refused("is too long")
    if code == errno.ENXIO:
        return _refused("is no regular file")
    return unavailable(error)


def unavailable(error: OSError) -> StorageUnavailable:
    """What the caller is told about a failure of the storage itself."""
    if error.errno in _NO_SPACE:
        told = "the disk of the storage is full; nothing of this was kept. Delete files, or try again later"
        return StorageUnavailable(told, reason="disk_full")
    return StorageUnavailable(
        "the storage did not answer as it should; try again", reason=errno.errorcode.get(error.errno or 0, "unknown")
    )
