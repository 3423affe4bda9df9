"""User tokens of the REST facade: bound to a key and to no session, with an idle clock that sessions keep wound."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from dataproc.access.scopes import split
from dataproc.database import Database
from dataproc.database.records import Session, over, session_of
from dataproc.database.secret import digest, new_uuid
from dataproc.database.tables import keys, maybe_moment, micros, moment, sessions, user_sessions, user_tokens
from dataproc.errors import NotFound, Unauthorized
from dataproc.settings import Settings
from dataproc.types import Principal

FORGOTTEN = 100  # old records deleted when a new token is made
COARSE = timedelta(seconds=1)  # a clock that was wound within it is not wound again


# built once, as each call needs them
_FIND = (
    select(user_tokens, keys.c.grants, keys.c.expires_at, keys.c.revoked_at)
    .join(keys, keys.c.id == user_tokens.c.key_id)
    .where(user_tokens.c.digest == bindparam("proof"))
)
_OWNER = select(user_sessions.c.user_token_id).where(user_sessions.c.session_id == bindparam("wanted"))


@dataclass(frozen=True, slots=True)
class Holder:
    """Who sent a user token. key: the id of its key; what it may do is what the key's tokens may.

    until: its idle clock, as last written.
    """

    token: str
    key: str
    grants: frozenset[str]
    until: datetime = field(compare=False)

    def principal(self, session_id: str | None = None) -> Principal:
        """The caller, in one of the token's sessions."""
        return Principal(self.key, "token", self.grants, self.grants, session_id, self.token)


class UserTokens:
    """Makes, checks and ends them. Nothing is cached: an end is seen at once everywhere.

    Everything may raise StorageUnavailable.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self.timeout = timedelta(minutes=settings.cra_timeout_minutes)
        self._remembered = timedelta(seconds=settings.tombstone_retention)

    async def issue(self, key: str) -> str:
        """A new token of a key; its text, which is kept nowhere."""
        text, now = new_uuid(), self._database.now()
        row = {
            "id": new_uuid(),
            "digest": digest(text),
            "key_id": key,
            "created_at": micros(now),
            "idle_expires_at": micros(now + self.timeout),
        }
        old = select(user_tokens.c.id).where(user_tokens.c.idle_expires_at < micros(now - self._remembered))

        def work(connection: Connection) -> None:
            connection.execute(delete(user_tokens).where(user_tokens.c.id.in_(old.limit(FORGOTTEN).scalar_subquery())))
            connection.execute(insert(user_tokens), [row])

        await self._database.write(work)
        return text

    async def authenticate(self, text: str) -> Holder:
        """Whose it is; its clock is wound. Raises Unauthorized: `data.reason` for one that was good once."""
        proof = digest(text)
        row = await self._database.read(lambda connection: _find(connection, proof))
        if row is None:
            raise Unauthorized("unknown user token: log on first")
        now = self._database.now()
        if row.ended_at is not None:
            raise Unauthorized("this user token was logged off: log on again", reason="closed")
        expires_at = maybe_moment(row.expires_at)
        if row.revoked_at is not None or (expires_at is not None and expires_at <= now):
            raise Unauthorized("the key of this user token is not good any more", reason="revoked")
        until = moment(row.idle_expires_at)
        if until <= now and not await self._in_use(row.id, now):
            raise Unauthorized("this user token expired: log on again", reason="expired")
        holder = Holder(row.id, row.key_id, split(row.grants), until)
        await self.wind(holder)
        return holder

    async def _in_use(self, token: str, now: datetime) -> bool:
        """Whether a session of it lives: its clock is wound by other doors, too."""
        living = await self._database.read(lambda connection: _open_sessions(connection, token))
        return any(self._lives(session, now) for session in living)

    def _lives(self, session: Session, now: datetime) -> bool:
        if over(session, now) is not None:
            return False
        idle = session.idle_expires_at
        return idle is None or idle > now or session.id in self._database.use

    async def wind(self, holder: Holder) -> None:
        """The token, or a session of it, is used: its idle clock starts anew."""
        until = self._database.now() + self.timeout
        if until - holder.until < COARSE:
            return
        later = micros(until)
        living = user_tokens.c.id == holder.token, user_tokens.c.idle_expires_at < later
        await self._database.write(
            lambda connection: connection.execute(update(user_tokens).where(*living).values(idle_expires_at=later))
        )

    async def take(self, holder: Holder, session_id: str) -> None:
        """A session just opened becomes one of the token's. Raises Unauthorized for an ended one."""
        living = select(user_tokens.c.id).where(user_tokens.c.id == holder.token, user_tokens.c.ended_at.is_(None))

        def work(connection: Connection) -> None:
            if connection.scalar(living.with_for_update(read=True)) is None:
                raise Unauthorized("this user token was logged off: log on again", reason="closed")
            connection.execute(insert(user_sessions), [{"session_id": session_id, "user_token_id": holder.token}])

        await self._database.write(work)

    async def require(self, holder: Holder, session_id: str) -> None:
        """Raises NotFound unless the session is one of the token's."""
        owner = await self._database.read(lambda connection: connection.scalar(_OWNER, {"wanted": session_id}))
        if owner != holder.token:
            raise NotFound("there is no such session of this user token")

    async def sessions(self, holder: Holder) -> list[str]:
        """The ids of its open sessions."""
        return [session.id for session in await self._database.read(lambda c: _open_sessions(c, holder.token))]

    async def end(self, holder: Holder) -> None:
        """Log it off. Its sessions are the caller's to end."""
        ended = update(user_tokens).where(user_tokens.c.id == holder.token, user_tokens.c.ended_at.is_(None))
        now = micros(self._database.now())
        await self._database.write(lambda connection: connection.execute(ended.values(ended_at=now)))


def _find(connection: Connection, proof: bytes) -> Row[Any] | None:
    return connection.execute(_FIND, {"proof": proof}).one_or_none()


def _open_sessions(connection: Connection, token: str) -> list[Session]:
    asked = (
        select(sessions)
        .join(user_sessions, user_sessions.c.session_id == sessions.c.id)
        .where(user_sessions.c.user_token_id == token, sessions.c.state == "open")
    )
    return [session_of(row) for row in connection.execute(asked)]
