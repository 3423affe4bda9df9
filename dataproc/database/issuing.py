"""More tokens to a session, and taking them back: the transactions."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, select, update

from dataproc.database import statements
from dataproc.database.records import Session
from dataproc.database.secret import digest, new_uuid
from dataproc.database.statements import KeyState
from dataproc.database.tables import maybe_micros, micros, moment, sessions, tokens
from dataproc.database.use import Use
from dataproc.errors import NotFound, Unauthorized

_PARENT = select(tokens.c.expires_at, tokens.c.revoked_at).where(tokens.c.id == bindparam("parent"))


def require_key(connection: Connection, key_id: str, now: datetime) -> KeyState:
    """The key, which must be good still. Raises Unauthorized."""
    key = statements.find_key(connection, key_id)
    if key is None or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= micros(now)):
        raise Unauthorized("this key is not good any more")
    return key


@dataclass(frozen=True, slots=True)
class Issuing:
    """A further token of those `scopes` to an open session. It ends with its parent, if it has one.

    life: seconds; None for as long as parent and session live.
    """

    session_id: str
    key: str
    parent: str | None
    scopes: str
    life: int | None
    now: datetime
    use: Use
    id: str = field(default_factory=new_uuid)
    token: str = field(default_factory=new_uuid, repr=False)

    def run(self, connection: Connection) -> tuple[Session, datetime | None]:
        """The session, and when the token ends. Raises SessionEnded, Unauthorized, NotFound."""
        require_key(connection, self.key, self.now)
        locked = select(sessions.c.id).where(sessions.c.id == self.session_id).with_for_update(read=True)
        connection.execute(locked)
        session = statements.find_session(connection, self.session_id)
        if session is None:
            raise NotFound("no such session")
        if error := self.use.ended(session, self.now):
            raise error
        wished = None if self.life is None else self.now + timedelta(seconds=self.life)
        ends = _first(wished, self._parent_ends(connection))
        row = {
            "id": self.id,
            "digest": digest(self.token),
            "session_id": session.id,
            "key_id": self.key,
            "parent_id": self.parent,
            "scopes": self.scopes,
            "created_at": micros(self.now),
            "expires_at": maybe_micros(ends),
        }
        statements.add_token(connection, row)
        return session, _first(ends, session.expires_at)

    def _parent_ends(self, connection: Connection) -> datetime | None:
        if self.parent is None:
            return None
        parent = connection.execute(_PARENT.with_for_update(read=True), {"parent": self.parent}).one_or_none()
        if parent is None or parent.revoked_at is not None:
            raise Unauthorized("this token was revoked", reason="revoked")
        ends = None if parent.expires_at is None else moment(parent.expires_at)
        if ends is not None and ends <= self.now:
            raise Unauthorized("this token expired", reason="expired")
        return ends


def _first(*ends: datetime | None) -> datetime | None:
    return min((end for end in ends if end is not None), default=None)


def revoke(connection: Connection, token_id: str, now: datetime) -> list[str]:
    """Take a token back with all that were issued from it, and from those; ids of the ones that this ended."""
    living = tokens.c.revoked_at.is_(None)
    mark = update(tokens).values(revoked_at=micros(now)).returning(tokens.c.id)
    ended = list(connection.scalars(mark.where(tokens.c.id == token_id, living)))
    line = select(tokens.c.id).where(tokens.c.parent_id == token_id).cte("line", recursive=True)
    line = line.union_all(select(tokens.c.id).join(line, tokens.c.parent_id == line.c.id))
    below = mark.where(tokens.c.id.in_(select(line.c.id)), living)
    while more := list(connection.scalars(below)):  # again: one may have been issued while its parent was waited for
        ended += more
    return ended


def revoke_all(connection: Connection, session_id: str, now: datetime) -> list[str]:
    """Take all tokens of a session back; ids of the ones that this ended."""
    living = update(tokens).where(tokens.c.session_id == session_id, tokens.c.revoked_at.is_(None))
    return list(connection.scalars(living.values(revoked_at=micros(now)).returning(tokens.c.id)))
