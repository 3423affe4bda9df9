"""A session's row as a value, and what its caller is told once it is over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row

from dataproc.database.tables import maybe_moment, moment
from dataproc.errors import SessionEnded
from dataproc.types import GATEWAY_PREFIX, rfc3339

State = Literal["open", "closing", "ended"]
Reason = Literal["closed", "expired", "idle", "revoked"]

# where a session may go; from ended it is restored
NEXT: dict[State, frozenset[State]] = {
    "open": frozenset({"closing"}),
    "closing": frozenset({"ended"}),
    "ended": frozenset({"open"}),
}


@dataclass(frozen=True, slots=True)
class Session:
    """One session, as the database has it. Times are aware UTC, durations seconds.

    key: id of its owner. reason and ended_at: why and since when it takes no calls; None while it is open.
    expires_at: the fixed clock; None where it has none. idle_expires_at: the idle clock, as last written.
    extensions: how often its life was extended. ended_by: who ended it. kept_until: when the files of an ended one are
    deleted; None where there are none.
    """

    id: str
    key: str
    state: State
    created_at: datetime
    expires_at: datetime | None
    reason: Reason | None = None
    ended_at: datetime | None = None
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    idle_timeout: float | None = None
    idle_expires_at: datetime | None = None
    one_shot: bool = False
    extensions: int = 0
    ended_by: str | None = None
    kept_until: datetime | None = None

    @property
    def gateway(self) -> bool:
        """Whether a trusted gateway made up its id."""
        return self.id.startswith(GATEWAY_PREFIX)


def session_of(row: Row[Any]) -> Session:
    """The value of a row of `sessions`."""
    return Session(
        id=row.id,
        key=row.key_id,
        state=row.state,
        created_at=moment(row.created_at),
        expires_at=maybe_moment(row.expires_at),
        reason=row.reason,
        ended_at=maybe_moment(row.ended_at),
        name=row.name,
        labels=json.loads(row.labels),
        idle_timeout=None if row.idle_timeout is None else row.idle_timeout / 1_000_000,
        idle_expires_at=maybe_moment(row.idle_expires_at),
        one_shot=row.one_shot_of is not None,
        extensions=row.extensions,
        ended_by=row.ended_by,
        kept_until=maybe_moment(row.kept_until),
    )


def over(session: Session, now: datetime) -> SessionEnded | None:
    """What a caller is told of a session that takes no calls; None while it does.

    A session whose fixed clock has run out is over from that instant, whether or not somebody has ended it yet.
    Only a session that its owner is closing says `closing`: of the other reasons nothing is going to change.
    """
    if session.state == "open":
        if session.expires_at is not None and session.expires_at <= now:
            return ended(session.id, "expired", session.expires_at)
        return None
    closing = session.state == "closing" and session.reason == "closed"
    return ended(session.id, "closing" if closing else session.reason or "closed", session.ended_at or now)


def ended(session_id: str, reason: str, ended_at: datetime) -> SessionEnded:
    """The error of a session that takes no calls."""
    how = {
        "closing": "is being closed",
        "closed": "was closed",
        "expired": "has reached the end of its life",
        "idle": "was not used for longer than it may be",
        "revoked": "ended because its key was revoked",
    }[reason]
    error = SessionEnded(
        f"the session {how}: open a new one, and delete the token if it was saved",
        reason=reason,
        ended_at=rfc3339(ended_at),
    )
    error.session = session_id
    return error
