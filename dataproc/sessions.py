"""Sessions: opened, looked up, kept busy, ended. What a session's directory is, others know."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError

from dataproc.database import Database, statements
from dataproc.database.counts import OpenCounts
from dataproc.database.fresh import Answer, Fresh
from dataproc.database.opening import Opening, check_names, lifetime
from dataproc.database.records import Reason as Reason
from dataproc.database.records import Session as Session
from dataproc.database.records import ended, over
from dataproc.database.secret import digest, new_uuid
from dataproc.database.statements import Due as Due
from dataproc.database.statements import Token
from dataproc.database.use import Use
from dataproc.errors import InvalidParams, NotFound, SessionEnded
from dataproc.settings import Settings
from dataproc.types import SESSION_ID, Principal

CACHED = 4096  # sessions remembered at once


@dataclass(frozen=True, slots=True)
class Opened:
    """An open session and a fresh token to it. expires_in: whole seconds that the session has left."""

    access_token: str
    expires_in: int
    session: Session


class Sessions:
    """The sessions of this database, as one server sees them.

    A looked-up session is believed for at most `credential_cache` seconds; one that is ended here is over at once.
    Everything that asks the database may raise StorageUnavailable.
    """

    def __init__(self, database: Database, settings: Settings, node: str = "") -> None:
        """node: the server's name; one-shot sessions end with its life."""
        self._database = database
        self._settings = settings
        self._node = node
        self._fresh: Fresh[str, Session] = Fresh(database.clock, settings.credential_cache, CACHED)
        self._counts = OpenCounts(database)
        self._use = Use(database)

    # ------------------------------------------------------------------------------------------------- opening

    async def open(
        self,
        principal: Principal,
        *,
        expires_in: object = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        one_shot: bool = False,
    ) -> Opened:
        """Open a session of the caller's key; with a `name` that one of its open sessions has, a fresh token to that.

        expires_in: whole seconds, None for the default; a key that expires sooner cuts it. one_shot: it ends with the
        server's life, unless `keep` is called. Raises InvalidParams by field, Overloaded, Unauthorized for a key that
        was revoked meanwhile.
        """
        life = lifetime(expires_in, self._settings)
        check_names(name, labels)
        now, limit = self._database.now(), self._settings.max_sessions_per_key
        ends = now + timedelta(seconds=life)
        wanted = Session(
            new_uuid(), principal.key, "open", now, ends, name=name, labels=labels or {}, one_shot=one_shot
        )
        node, scopes = self._node if one_shot else None, " ".join(sorted(principal.grants))
        if name is None:
            session = await self._insert(opening := Opening(wanted, scopes, node, now), limit)
        else:
            session = await self._insert_named(opening := Opening(wanted, scopes, node, now, limit))
        assert session.expires_at is not None
        return Opened(opening.token, int((session.expires_at - now).total_seconds()), session)

    async def _insert(self, opening: Opening, limit: int) -> Session:
        key, opened = opening.session.key, False
        await self._counts.reserve(key, limit)
        try:
            session = await self._database.write(opening.run)
            opened = True
        finally:
            self._counts.settle(key, opened)
        return session

    async def _insert_named(self, opening: Opening) -> Session:
        try:
            session = await self._database.write(opening.run)
        except IntegrityError:  # another server opened one of that name in the same moment: now it is there
            session = await self._database.write(opening.run)
        if session.id == opening.session.id:
            self._counts.opened(session.key)
        return session

    async def adopt(self, principal: Principal) -> Session:
        """The session that a trusted gateway's id names, opened at its first use; it ends by its idle clock.

        Raises SessionEnded as long as its tombstone lasts.
        """
        assert principal.session is not None
        with suppress(NotFound):
            return await self.live(principal.session)
        now = self._database.now()
        idle = self._settings.gateway_idle_timeout
        ends = now + timedelta(seconds=idle)
        session = Session(principal.session, principal.key, "open", now, None, idle_timeout=idle, idle_expires_at=ends)

        with suppress(IntegrityError):  # another server did the same in the same moment
            await self._database.write(lambda connection: statements.add_unknown(connection, session))
        return await self.live(principal.session)

    async def keep(self, session_id: str) -> None:
        """Let a one-shot session outlive its call: its token was, or will be, given away."""
        await self._database.write(lambda connection: statements.keep(connection, session_id))

    # ------------------------------------------------------------------------------------------------ looking up

    async def live(self, session_id: str) -> Session:
        """A session that takes calls. Does not suspend while an earlier answer is fresh.

        Raises SessionEnded, or NotFound where there is none, or its tombstone is gone.
        """
        known = self._fresh.get(session_id)
        if known is not None and session_id not in self._database.gone:
            return known
        return await self._fresh.ask(session_id, lambda: self._ask(session_id))

    async def _ask(self, session_id: str) -> Answer[Session]:
        session = await self._database.read(lambda connection: statements.find_session(connection, session_id))
        if session is None:
            raise NotFound("no such session")
        now = self._database.now()
        if error := self._over(session, now):
            self._use.over(session_id)
            raise error
        if session.idle_timeout is not None:
            self._use.met(session_id)
        ends = [end for end in (session.expires_at, session.idle_expires_at) if end is not None]
        return Answer(session, min(((end - now).total_seconds() for end in ends), default=None))

    def _over(self, session: Session, now: datetime) -> SessionEnded | None:
        if error := over(session, now):
            return error
        idle_since = session.idle_expires_at
        if idle_since is None or idle_since > now or session.id in self._use:
            return None
        return ended("idle", idle_since)

    async def verify(self, principal: Principal, token: str) -> bool:
        """Whether `token` is one of the caller's key, and opens a session now."""
        found = await self._own(principal, token)
        now = self._database.now()
        if found is None or found.revoked_at is not None or (found.expires_at is not None and found.expires_at <= now):
            return False
        return self._over(found.session, now) is None

    async def get(self, principal: Principal, *, token: str | None = None, session_id: str | None = None) -> Session:
        """One session of the caller's, tombstones too: its own by default, with a key any of the key's.

        Raises NotFound for what is unknown and for what is another's alike, InvalidParams where none is named.
        """
        session = None
        if token is not None:
            found = await self._own(principal, token)
            session = found.session if found else None
        else:
            wanted = session_id or principal.session
            if wanted is None:
                raise InvalidParams.field("session_id", "a caller with a key has to name a session, or give `token`")
            if SESSION_ID.fullmatch(wanted) or wanted == principal.session:
                session = await self._database.read(lambda connection: statements.find_session(connection, wanted))
        if session is None or not _owns(principal, session):
            raise NotFound("no such session")
        return session

    async def find_to_close(self, principal: Principal, token: str) -> Session | None:
        """The session that the caller may end by that token; None where there is nothing to end."""
        found = await self._own(principal, token)
        if found is None or found.session.state == "ended" or not _owns(principal, found.session):
            return None
        return found.session

    async def _own(self, principal: Principal, token: str) -> Token | None:
        proof = digest(token)
        found = await self._database.read(lambda connection: statements.find_token(connection, proof))
        return found if found is not None and found.key == principal.key else None

    async def revoke_token(self, token_id: str) -> None:
        """Take one token back, by the id of its record; its session lives on."""
        now = self._database.now()
        await self._database.write(lambda connection: statements.revoke_token(connection, token_id, now))
        self._database.gone.add(token_id)

    # -------------------------------------------------------------------------------------------------- in use

    def enter(self, session_id: str) -> None:
        """A run or a transfer begins. Raises SessionEnded where this server has begun to end the session."""
        if session_id in self._database.gone:
            raise ended("closing", self._database.now())
        self._use.begin(session_id)

    def leave(self, session_id: str) -> None:
        """What `enter` told of has ended."""
        self._use.finish(session_id)

    def touch(self, session_id: str) -> None:
        """The session is being used: its idle clock starts anew."""
        self._use.touch(session_id)

    def running(self, session_id: str) -> int:
        """How many runs and transfers are under way here."""
        return self._use.running(session_id)

    async def wind(self) -> None:
        """Write down which sessions were used; within a second of the use, and at the stop."""
        await self._use.wind()

    # --------------------------------------------------------------------------------------------------- ending

    async def begin_end(self, session_id: str, reason: Reason) -> Session | None:
        """Let a session take no calls any more; how it stands, or None where there is nothing to end.

        That is an unknown session, an ended one, and one whose clock was wound after it had been found due.
        """
        if reason == "idle" and session_id in self._use:
            return None
        gone, now = self._database.gone, self._database.now()
        gone.add(session_id)
        try:
            ending = await self._database.write(
                lambda connection: statements.begin_end(connection, session_id, reason, now)
            )
        except Exception:
            gone.discard(session_id)
            raise
        if ending is None or ending.session.state == "open":
            gone.discard(session_id)
            return None
        self._fresh.drop(session_id)
        if ending.begun:
            self._counts.ended(ending.session.key)
        return ending.session if ending.session.state == "closing" else None

    async def finish_end(self, session_id: str) -> None:
        """A closing session becomes a tombstone: nothing of it is left but this."""
        await self._database.write(lambda connection: statements.finish_end(connection, session_id))
        self._use.over(session_id)

    async def end_one_shots(self) -> int:
        """Begin to end what one-shot sessions an earlier life of this node left; for the start. Returns how many."""
        now = self._database.now()
        return await self._database.write(
            lambda connection: statements.begin_end_of_one_shots(connection, self._node, now)
        )

    async def due(self, limit: int) -> list[Due]:
        """Sessions that have to be seen to their end: closing ones, and those whose clocks ran out. Oldest first."""
        await self.wind()
        now = self._database.now()
        found = await self._database.read(lambda connection: statements.find_due(connection, now, limit))
        return [due for due in found if due.reason != "idle" or due.id not in self._use]

    async def count(self) -> dict[str, int]:
        """How many sessions are open, and how many closing."""
        return await self._database.read(statements.count_states)

    async def forget(self, limit: int) -> int:
        """Delete tombstones that are older than they are kept, at most `limit`; returns how many."""
        before = self._database.now() - timedelta(seconds=self._settings.tombstone_retention)
        return await self._database.write(lambda connection: statements.forget(connection, before, limit))


def _owns(principal: Principal, session: Session) -> bool:
    if principal.session is not None:
        return session.id == principal.session
    return session.key == principal.key
