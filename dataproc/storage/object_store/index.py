"""What a session's directory holds, as a value: enough to make an equal copy of it on another machine."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dataproc.storage.folders import RUNS
from dataproc.storage.paths import MAX_PATH, opened_beneath

KEPT = ("files", "modules")  # the folders of a session that are in its index; lock files never leave the machine
_READ = os.O_RDONLY | os.O_DIRECTORY

Signature: TypeAlias = tuple[int, int, int, int]  # inode, size, time of modification, time of change


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A regular file, its bytes in the store under `key`. modified: nanoseconds since 1970.

    sha256: in hexadecimal; empty where the file was written to while it was put.
    """

    key: str
    size: int
    mode: int
    modified: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class KeptFolder:
    """A directory; it may be empty."""

    mode: int


@dataclass(frozen=True, slots=True)
class KeptLink:
    """A symbolic link, its text as it is: only what resolves paths decides where it may lead."""

    target: str


Kept = KeptFile | KeptFolder | KeptLink
_KINDS: dict[str, type[Kept]] = {"file": KeptFile, "folder": KeptFolder, "link": KeptLink}
_NAMES = {kind: name for name, kind in _KINDS.items()}
WHOLE = 1000  # entries; an index of fewer is always told whole
SHARE = 4  # times the paths that have changed since the last one that was told whole may be in all


def _never(revision: str) -> bytes:
    raise ValueError(f"the index of {revision} is not whole")


@dataclass(frozen=True, slots=True)
class Index:
    """All that a session keeps, by path (`files/a/b.csv`). revision: its name, empty before the first commit.

    base: the revision whose index is told whole. since: paths at which this one differs from it, and is told by.
    """

    revision: str = ""
    entries: dict[str, Kept] = field(default_factory=dict)
    base: str = ""
    since: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(kept.size for kept in self.entries.values() if isinstance(kept, KeptFile))

    def keys(self) -> set[str]:
        """The objects it stands on."""
        return {kept.key for kept in self.entries.values() if isinstance(kept, KeptFile)}

    def followed(self, revision: str, entries: dict[str, Kept], changed: set[str]) -> Index:
        """The next one, which differs at the paths `changed`; it is told whole where that is little more."""
        since = self.since | changed
        if not self.base or len(entries) < WHOLE or len(since) * SHARE > len(entries):
            return Index(revision, entries, revision)
        return Index(revision, entries, self.base, since)

    def dumps(self) -> bytes:
        """As JSON; names that are no UTF-8 survive it."""
        if self.base in ("", self.revision):
            entries = {path: _told(kept) for path, kept in self.entries.items()}
            return json.dumps({"revision": self.revision, "entries": entries}).encode()
        changed = {path: _told(self.entries[path]) for path in self.since if path in self.entries}
        gone = [path for path in self.since if path not in self.entries]
        told = {"revision": self.revision, "base": self.base, "changed": changed, "gone": gone}
        return json.dumps(told).encode()

    @classmethod
    def loads(cls, data: bytes, whole: Callable[[str], bytes] = _never) -> Index:
        """From its JSON. whole: what has the JSON of another revision. Raises ValueError, KeyError, TypeError."""
        read = json.loads(data)
        if "base" not in read:
            return cls(read["revision"], _entries(read["entries"]), read["revision"])
        entries = cls.loads(whole(read["base"])).entries
        since = frozenset(read["changed"]) | frozenset(read["gone"])
        for path in since:
            entries.pop(path, None)
        entries.update(_entries(read["changed"]))
        return cls(read["revision"], entries, read["base"], since)


def _told(kept: Kept) -> dict[str, object]:
    return {"kind": _NAMES[type(kept)], **{slot: getattr(kept, slot) for slot in kept.__slots__}}


def _entries(read: dict[str, dict[str, Any]]) -> dict[str, Kept]:
    return {path: _KINDS[kept.pop("kind")](**kept) for path, kept in read.items()}


def signature(found: os.stat_result) -> Signature:
    """What changes when a file's content may have changed."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def scan(
    top: int, folders: tuple[str, ...] = KEPT, within: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], os.stat_result, str]]:
    """Every directory, regular file and link below `folders` of an open one: names, stat, target of a link.

    within: the names of the directory that is looked into instead. A directory comes before what is in it. FIFOs,
    sockets and devices are left out, as is what disappears meanwhile, and what lies deeper than a path can be long.
    What a module closed by its mode is looked into all the same.
    """
    pending: list[tuple[str, ...]] = [within] if within else [(name,) for name in folders]
    while pending:
        names = pending.pop()
        with suppress(FileNotFoundError, NotADirectoryError):
            for below, found, target in _listed(top, names):
                yield below, found, target
                if stat.S_ISDIR(found.st_mode):
                    pending.append(below)


Found: TypeAlias = tuple[tuple[str, ...], os.stat_result, str]


def _listed(top: int, names: tuple[str, ...]) -> list[Found]:
    try:
        with opened_beneath(top, names, _READ | os.O_NOFOLLOW) as folder:
            return list(_scan_folder(folder, names))
    except PermissionError:
        with unlocked(top, names, _READ) as folder:
            return list(_scan_folder(folder, names))


def _scan_folder(folder: int, names: tuple[str, ...]) -> Iterator[Found]:
    with os.scandir(folder) as entries:
        for entry in entries:
            below = (*names, entry.name)
            if below == ("modules", RUNS) or len(os.fsencode("/".join(below))) > MAX_PATH:
                continue
            with suppress(FileNotFoundError):  # this one alone has gone: what comes after it is still to be told
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISLNK(found.st_mode):
                    yield below, found, os.readlink(entry.name, dir_fd=folder)
                elif stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                    yield below, found, ""


@contextmanager
def unlocked(top: int, names: tuple[str, ...], flags: int) -> Iterator[int]:
    """A descriptor of what `names` lead to, without links, opened though its mode, or one above, forbids it to us.

    We own what modules of ours made, so the modes can be widened, and are set back at the end. Raises OSError.
    """
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
    widened: list[tuple[int, int]] = []
    try:
        for at, name in enumerate(names):
            last = at == len(names) - 1
            below = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
            _widen(here, 0o400 if last and not flags & os.O_DIRECTORY else 0o500, widened)
        fd = os.open(f"/proc/self/fd/{here}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        os.close(here)
        _set_back(widened)


def _widen(pinned: int, needed: int, widened: list[tuple[int, int]]) -> None:
    mode = stat.S_IMODE(os.fstat(pinned).st_mode)
    if mode & needed != needed and not stat.S_ISLNK(os.fstat(pinned).st_mode):
        os.chmod(f"/proc/self/fd/{pinned}", mode | needed)  # the pinned one itself, whatever lies at its name by now
        widened.append((os.dup(pinned), mode))


def _set_back(widened: list[tuple[int, int]]) -> None:
    for pinned, mode in reversed(widened):
        with suppress(OSError):
            os.chmod(f"/proc/self/fd/{pinned}", mode)
        os.close(pinned)
