"""A longer life for a session, and a second one: the transactions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError

from dataproc.database import statements
from dataproc.database.counts import refuse_above
from dataproc.database.issuing import require_key, revoke_all
from dataproc.database.records import Session, ended
from dataproc.database.secret import digest, new_uuid
from dataproc.database.tables import maybe_micros, micros, moment, sessions
from dataproc.database.use import Use
from dataproc.errors import Conflict, InvalidParams, NotFound, QuotaExceeded
from dataproc.settings import Settings


@dataclass(frozen=True, slots=True)
class Extending:
    """A life of `life` seconds from `now` on for an open session."""

    session_id: str
    life: int
    now: datetime
    use: Use
    settings: Settings

    def run(self, connection: Connection) -> Session:
        """The session, with its fixed clock moved; one that lasts as long anyway stays as it is, and is not counted.

        Raises InvalidParams where its longest life allows no more, QuotaExceeded where it was extended often enough.
        """
        # else two servers that extend it at once count one extension
        connection.execute(select(sessions.c.id).where(sessions.c.id == self.session_id).with_for_update())
        session = statements.find_session(connection, self.session_id)
        if session is None:
            raise NotFound("no such session")
        if error := self.use.ended(session, self.now):
            raise error
        wished = self.now + timedelta(seconds=self.life)
        if session.expires_at is None or wished <= session.expires_at:
            return session
        ends = min(wished, self._bound(connection, session))
        if ends <= session.expires_at:
            most = self.settings.max_expires_in
            raise InvalidParams.field(
                "expires_in",
                f"the session may last {most} seconds in all, and no longer than its key: it cannot be extended",
                "less_than_equal",
            )
        limit, used = self.settings.max_extensions, session.extensions
        if used >= limit:
            raise QuotaExceeded(
                f"the session was extended {used} times, and may be {limit} times (DATAPROC_MAX_EXTENSIONS)",
                quota="extensions",
                limit=limit,
                used=used,
            )
        extended = update(sessions).where(sessions.c.id == session.id)
        connection.execute(extended.values(expires_at=micros(ends), extensions=sessions.c.extensions + 1))
        return replace(session, expires_at=ends, extensions=used + 1)

    def _bound(self, connection: Connection, session: Session) -> datetime:
        bound = session.created_at + timedelta(seconds=self.settings.max_expires_in)
        key = statements.find_key(connection, session.key)
        return bound if key is None or key.expires_at is None else min(bound, moment(key.expires_at))


@dataclass(frozen=True, slots=True)
class Restoring:
    """An ended session that takes calls again, with a new token of those `scopes`; its earlier ones stay dead."""

    session_id: str
    scopes: str
    now: datetime
    settings: Settings
    token: str = field(default_factory=new_uuid, repr=False)

    def run(self, connection: Connection) -> tuple[Session, list[str]]:
        """The session, and the ids of the tokens that are dead now.

        Raises NotFound, Conflict where it is not over or its name is taken, SessionEnded where its files are gone,
        Overloaded, Unauthorized.
        """
        session = statements.find_session(connection, self.session_id)
        if session is None:
            raise NotFound("no such session")
        self._require_ended(session)
        key = require_key(connection, session.key, self.now)
        for owner, limit, setting in (
            (session.key, self.settings.max_sessions_per_key, "DATAPROC_MAX_SESSIONS_PER_KEY"),
            (None, self.settings.max_sessions, "DATAPROC_MAX_SESSIONS"),
        ):
            refuse_above(limit, statements.count_open(connection, owner), setting)
        session = self._second_life(session, None if key.expires_at is None else moment(key.expires_at))
        dead = revoke_all(connection, session.id, self.now)
        self._write(connection, session)
        token = {
            "id": new_uuid(),
            "digest": digest(self.token),
            "session_id": session.id,
            "key_id": session.key,
            "scopes": self.scopes,
            "created_at": micros(self.now),
        }
        statements.add_token(connection, token)
        return session, dead

    def _require_ended(self, session: Session) -> None:
        if session.state == "open":
            raise Conflict("the session is open: session.issue_token gives a token to it")
        if session.state == "closing":
            raise Conflict("the session is still being ended: try again in a moment")
        if session.kept_until is None or session.kept_until <= self.now:
            error = ended(session.id, session.reason or "closed", session.ended_at or self.now)
            error.message = "the session's files are gone: it cannot be restored"
            raise error

    def _second_life(self, session: Session, key_ends: datetime | None) -> Session:
        ends = session.expires_at
        if ends is not None and ends <= self.now:
            ends = self.now + (ends - session.created_at)
            ends = min(ends, self.now + timedelta(seconds=self.settings.max_expires_in))
        if ends is not None and key_ends is not None:
            ends = min(ends, key_ends)
        idle = None if session.idle_timeout is None else self.now + timedelta(seconds=session.idle_timeout)
        return replace(
            session, state="open", reason=None, ended_at=None, ended_by=None, kept_until=None, expires_at=ends,
            idle_expires_at=idle,
        )  # fmt: skip

    def _write(self, connection: Connection, session: Session) -> None:
        ended_one = update(sessions).where(sessions.c.id == session.id, sessions.c.kept_until > micros(self.now))
        living = {
            "state": "open",
            "reason": None,
            "ended_at": None,
            "ended_by": None,
            "kept_until": None,
            "expires_at": maybe_micros(session.expires_at),
            "idle_expires_at": maybe_micros(session.idle_expires_at),
        }
        try:
            found = connection.execute(ended_one.values(**living)).rowcount
        except IntegrityError:
            raise Conflict(f"another session is named {session.name!r} now: end that one first") from None
        if not found:
            raise Conflict("the session was restored, or its files went, in this moment")
