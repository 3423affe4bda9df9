"""What a session's directory holds, as a value: enough to make an equal copy of it on another machine."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from dataproc.storage.paths import MAX_PATH, opened_beneath

KEPT = ("files", "modules")  # the folders of a session that are in its index; lock files never leave the machine
_READ = os.O_RDONLY | os.O_DIRECTORY

Signature: TypeAlias = tuple[int, int, int, int]  # inode, size, time of modification, time of change


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A regular file, its bytes in the store under `key`. modified: nanoseconds since 1970."""

    key: str
    size: int
    mode: int
    modified: int


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


@dataclass(frozen=True, slots=True)
class Index:
    """All that a session keeps, by path (`files/a/b.csv`); `revision` counts its commits."""

    revision: int = 0
    entries: dict[str, Kept] = field(default_factory=dict)

    def keys(self) -> set[str]:
        """The objects it stands on."""
        return {kept.key for kept in self.entries.values() if isinstance(kept, KeptFile)}

    def dumps(self) -> bytes:
        """As JSON; names that are no UTF-8 survive it."""
        names = {kind: name for name, kind in _KINDS.items()}
        entries = {
            path: {"kind": names[type(kept)], **{slot: getattr(kept, slot) for slot in kept.__slots__}}
            for path, kept in self.entries.items()
        }
        return json.dumps({"revision": self.revision, "entries": entries}).encode()

    @classmethod
    def loads(cls, data: bytes) -> Index:
        """From its JSON. Raises ValueError, KeyError, TypeError for what is none."""
        read = json.loads(data)
        entries = {path: _KINDS[kept.pop("kind")](**kept) for path, kept in read["entries"].items()}
        return cls(read["revision"], entries)


def signature(found: os.stat_result) -> Signature:
    """What changes when a file's content may have changed."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def scan(top: int) -> Iterator[tuple[tuple[str, ...], os.stat_result, str]]:
    """Every directory, regular file and link below the open folder of a session: names, stat, target of a link.

    A directory comes before what is in it. FIFOs, sockets and devices are left out, as is what disappears meanwhile,
    what its mode closes to the server, and what lies deeper than a path can be long.
    """
    pending: list[tuple[str, ...]] = [(name,) for name in KEPT]
    while pending:
        names = pending.pop()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            for below, found, target in _scan_folder(top, names):
                yield below, found, target
                if stat.S_ISDIR(found.st_mode):
                    pending.append(below)


def _scan_folder(top: int, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], os.stat_result, str]]:
    with opened_beneath(top, names, _READ | os.O_NOFOLLOW) as folder, os.scandir(folder) as entries:
        for entry in entries:
            below = (*names, entry.name)
            if len(os.fsencode("/".join(below))) > MAX_PATH:
                continue
            with suppress(FileNotFoundError):  # this one alone has gone: what comes after it is still to be told
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISLNK(found.st_mode):
                    yield below, found, os.readlink(entry.name, dir_fd=folder)
                elif stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                    yield below, found, ""
