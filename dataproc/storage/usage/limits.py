"""What sessions may take, and what is told of those that take more."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dataproc.errors import QuotaExceeded
from dataproc.settings import Settings
from dataproc.storage.folders import Tree
from dataproc.storage.usage.watch import Watch
from dataproc.telemetry import METRICS
from dataproc.types import Usage

NOTHING = Usage()
FREE = 256 * 2**20  # bytes that stay free where the operator names none


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be taken; None: no limit. free: bytes that have to stay free on the disk; None: a small share of it."""

    session_bytes: int
    session_files: int
    key_bytes: int | None
    key_files: int | None
    free: int | None
    idle: float  # seconds after its last use that a session is watched

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """As the settings say."""
        return cls(
            settings.session_bytes, settings.session_files, settings.key_bytes, settings.key_files,
            settings.free_space, settings.warm_life,
        )  # fmt: skip


@dataclass(eq=False, slots=True)
class Watched:
    """A session under watch. tolerated: use above a limit that was told of already, so that it can be reduced."""

    session: str
    key: str
    tree: Tree
    watch: Watch
    tolerated: Usage = NOTHING
    judged: Usage = NOTHING  # use when it was last compared with the limits
    before: int = 0  # bytes at the last look
    grown: int = 0  # bytes since the look before
    users: int = 0
    reserved: int = 0  # bytes of uploads under way
    told: int = 0  # how often those who work in it were told that it takes too much
    error: QuotaExceeded | None = None  # what they were told last
    used_at: float = 0.0


def short_of(root: os.PathLike[str], limits: Limits, more: int) -> tuple[int, int] | None:
    """The bytes that have to stay free on a disk, and those that are, where so many more do not fit."""
    disk = os.statvfs(root)
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    floor = min(FREE, total // 100) if limits.free is None else limits.free
    return (floor, free) if free - more < floor else None


def over(quota: str, limit: int, used: int) -> QuotaExceeded:
    """The error, with its figures."""
    told = {
        "session_bytes": "the files of the session take {used} bytes, above its quota of {limit}; delete some",
        "session_files": "the session has {used} files and directories, above its quota of {limit}; delete some",
        "key_bytes": "the files of the key's sessions take {used} bytes, above its quota of {limit}; delete some",
        "key_files": "the key's sessions have {used} files and directories, above its quota of {limit}; delete some",
        "session_depth": "a path of the session has {used} bytes, above the limit of {limit}; delete a directory of it",
        "free_space": "the disk of the storage has {used} bytes left, and {limit} are to stay free; delete files",
    }[quota]
    METRICS.rejected(quota)
    return QuotaExceeded(told.format(used=used, limit=limit), quota=quota, limit=limit, used=used)
