"""The small values that rooms hand to each other."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = "dict[str, Json]"

SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,127}")  # as it stands on the wire
GATEWAY_PREFIX = "gw."  # before a gateway's id wherever we keep it: no id on the wire holds a dot


def wire_id(session_id: str) -> str:
    """The id of a session as its caller knows it: of a gateway's session, the gateway's own."""
    return session_id.removeprefix(GATEWAY_PREFIX)


Via = Literal["key", "token", "gateway"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls.

    key: id of the key on whose authority the call runs. Where a trusted peer named none it is the session's id, so that
    such a session shares its application directories, and its part of the queue, with no other.
    scopes: what this call may do. grants: the most that tokens opened with it may carry.
    session: id of the session that the credentials name; None for a key.
    token: id of the token record (never its text); None without one.
    """

    key: str
    via: Via
    scopes: frozenset[str]
    grants: frozenset[str] = frozenset()
    session: str | None = None
    token: str | None = None

    @property
    def name(self) -> str:
        """Who it is, in tombstones and the audit log: `key:<id>`, `token:<id>` or `gateway:<id>`."""
        return f"token:{self.token}" if self.token is not None else f"{self.via}:{self.key}"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something to keys, tokens and sessions, and where from, for tombstones and the audit log.

    name: a principal's name, `operator:<user>` of the command line, or `server`. client: address of the caller.
    """

    name: str
    client: str | None = None
    request_id: str | None = None


SERVER = Actor("server")


_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))  # the two bits that tell the layout


_last_id = (0, 0)
_STEADY = 86_400_000  # milliseconds: a clock that falls further back is followed


def new_id() -> str:
    """A UUID of version 7 (RFC 9562): ids sort by the time they were made at, and neighbours lie together in an index.

    Those of one process sort as they were made, also within a millisecond, which twelve bits count on,
    and where the wall clock jumps back.
    """
    global _last_id
    milliseconds, count = time.time_ns() // 1_000_000, 0
    last, counted = _last_id
    if milliseconds <= last < milliseconds + _STEADY:
        milliseconds, count = last, counted + 1
        if count == 4096:
            milliseconds, count = last + 1, 0
    _last_id = milliseconds, count
    digits = os.urandom(8).hex()
    time_part = f"{milliseconds:012x}"
    return f"{time_part[:8]}-{time_part[8:]}-7{count:03x}-{_VARIANT[digits[0]]}{digits[1:4]}-{digits[4:]}"


def first_id_of(moment: datetime) -> str:
    """What no id that is made from that moment on sorts before."""
    milliseconds = max(0, int(moment.timestamp() * 1000))
    digits = f"{milliseconds:012x}"
    return f"{digits[:8]}-{digits[8:]}-7"


def rfc3339(moment: datetime) -> str:
    """`2026-01-31T09:30:00.123Z`: UTC, milliseconds. `moment` must be aware."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


@dataclass(frozen=True, slots=True)
class Usage:
    """What sessions' files take: bytes on the disk, and files and directories in number."""

    bytes: int = 0
    files: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.bytes + other.bytes, self.files + other.files)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.bytes - other.bytes, self.files - other.files)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to a session. revision: what its files are now; None for a session that never had any.

    published: the revision that was last copied to plain names. until: by our monotonic clock; after that it has to
    be asked for again.
    """

    fence: int
    revision: str | None
    published: str | None
    until: float


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another node has the session, for so many seconds at least; url: where it takes requests, if it said so."""

    node: str
    url: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """The session's files are being deleted. seconds: since when."""

    session: str
    seconds: float
