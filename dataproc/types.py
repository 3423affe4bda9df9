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


_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))  # the two bits that tell the layout


def new_id() -> str:
    """A UUID of version 7 (RFC 9562): ids made one after the other sort so, and neighbours lie together in an index."""
    digits = f"{time.time_ns() // 1_000_000:012x}7{os.urandom(10).hex()}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"


def rfc3339(moment: datetime) -> str:
    """`2026-01-31T09:30:00.123Z`: UTC, milliseconds. `moment` must be aware."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
