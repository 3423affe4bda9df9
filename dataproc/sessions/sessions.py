"""The sessions themselves: opened, looked up, kept busy, ended, restored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError

from dataproc.database import statements
from dataproc.database.fresh import Answer
from dataproc.database.listing import Page, Wanted, list_sessions
from dataproc.database.lives import Extending, Restoring
from dataproc.database.opening import Opening, check_names, lifetime, whole
from dataproc.database.records import Session
from dataproc.database.secret import new_uuid
from dataproc.errors import InvalidParams, NotFound, Overloaded
from dataproc.sessions.ending import Endings
from dataproc.types import GATEWAY_PREFIX, SERVER, SESSION_ID, Actor, Principal


@dataclass(frozen=True, slots=True)
class Opened:
    """An open session and a fresh token to it, with those scopes. expires_in: whole seconds that the session has left.

    created: whether it was opened just now, and is not an earlier one of its name.
    """

    access_token: str
    expires_in: int
    session: Session
    scopes: frozenset[str] = frozenset()
    created: bool = True


class Sessions(Endings):
    """The sessions of this database, as one server sees them.

    A looked-up session is believed for at most `credential_cache` seconds; one that is ended here is over at once.
    Everything that asks the database may raise StorageUnavailable. `by` is who does it, for tombstones and the audit
    log. `tokens` are their tokens. While `draining`, no session is opened and no run begins.
    """

    # ------------------------------------------------------------------------------------------------- opening

    async def open(
        self,
        principal: Principal,
        *,
        expires_in: object = None,
        idle_timeout: object = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        scopes: Iterable[str] | None = None,
        one_shot: bool = False,
        by: Actor = SERVER,
    ) -> Opened:
        """Open a session of the caller's key; with a `name` that one of its open sessions has, a fresh token to that.

        expires_in: whole seconds, None for the default; a key that expires sooner cuts it. idle_timeout: whole seconds,
        None for no idle clock. scopes: of the token, some of the key's grants; None for all. one_shot: it ends with the
        server's life, unless `keep` is called. Raises InvalidParams by field, Overloaded, Unauthorized for a key that
        was revoked meanwhile.
        """
        life = lifetime(expires_in, self._settings)
        idle = None if idle_timeout is None else whole("idle_timeout", idle_timeout, self._settings.max_expires_in)
        check_names(name, labels)
        self.refuse_if_draining()
        given = principal.grants if scopes is None else frozenset(scopes)
        now = self._database.now()
        wanted = Session(
            new_uuid(), principal.key, "open", now, now + timedelta(seconds=life), name=name, labels=labels or {},
            idle_timeout=idle, idle_expires_at=None if idle is None else now + timedelta(seconds=idle),
            one_shot=one_shot,
        )  # fmt: skip
        node, words = self._node if one_shot else None, " ".join(sorted(given))
        opening = Opening(wanted, words, node, now, self._use, None if name is None else self._limits)
        session = await (self._insert(opening) if name is None else self._insert_named(opening))
        assert session.expires_at is not None
        created = session.id == wanted.id
        if not one_shot:
            event = "session_opened" if created else "session_reopened"
            self._database.audit.tell(event, by, key=principal.key, session=session.id, scopes=words, name=name)
        return Opened(opening.token, _seconds(session.expires_at, now), session, given, created)

    def refuse_if_draining(self) -> None:
        """Raises Overloaded while the server takes nothing new."""
        if self.draining:
            raise Overloaded("the server is being drained: try again, on another one", limit="draining", retry_after=5)

    @property
    def _limits(self) -> tuple[int, int]:
        return self._settings.max_sessions_per_key, self._settings.max_sessions

    async def _insert(self, opening: Opening) -> Session:
        key, opened = opening.session.key, False
        await self._counts.reserve(key, *self._limits)
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

    async def restore(self, principal: Principal, session_id: str, by: Actor = SERVER) -> Opened:
        """Bring an ended session back while its files are kept, with a fresh token; its earlier tokens stay dead.

        The idle clock starts anew, the fixed one if it had run out. Raises NotFound, Conflict where it is not over or
        its name is taken, SessionEnded where its files are gone, Overloaded.
        """
        self.refuse_if_draining()
        wanted = await self.get(principal, session_id=session_id)
        now, gone = self._database.now(), self._database.gone
        restoring = Restoring(wanted.id, " ".join(sorted(principal.grants)), now, self._settings)
        session, dead = await self._database.write(restoring.run)
        for token in dead:
            gone.add(token)
        gone.discard(session.id)
        self._counts.opened(session.key)
        self._database.audit.tell("session_restored", by, key=session.key, session=session.id)
        left = _seconds(session.expires_at or now, now)
        return Opened(restoring.token, left, session, principal.grants)

    async def extend(self, session: Session, expires_in: object, by: Actor = SERVER) -> Session:
        """Let an open session live for so many seconds from now on, None for the default; one that does, stays so.

        Raises InvalidParams beyond its longest life, QuotaExceeded where it was extended often enough, SessionEnded.
        """
        life, now = lifetime(expires_in, self._settings), self._database.now()
        extending = Extending(session.id, life, now, self._use, self._settings)
        extended = await self._database.write(extending.run)
        self._fresh.drop(session.id)
        if extended.extensions > session.extensions:
            ends = {"expires_in": _seconds(extended.expires_at or now, now), "extensions": extended.extensions}
            self._database.audit.tell("session_extended", by, key=session.key, session=session.id, **ends)
        return extended

    async def keep_alive(self, session: Session) -> Session:
        """Start the idle clock of an open session anew, for good when this returns. Raises SessionEnded."""
        now = self._database.now()
        if error := self._use.ended(session, now):
            raise error
        if session.idle_timeout is None:
            return session
        await self._database.write(lambda connection: statements.postpone_idleness(connection, [session.id], now))
        self._fresh.drop(session.id)
        return replace(session, idle_expires_at=now + timedelta(seconds=session.idle_timeout))

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
        turn = self._database.gone.turn
        session = await self._database.read(lambda connection: statements.find_session(connection, session_id))
        if session is None:
            raise NotFound("no such session")
        now = self._database.now()
        if error := self._use.ended(session, now):
            self._use.over(session_id)
            raise error
        self._database.gone.revive(session_id, turn)
        self._use.met(session)
        ends = [end for end in (session.expires_at, session.idle_expires_at) if end is not None]
        return Answer(session, min(((end - now).total_seconds() for end in ends), default=None))

    async def get(
        self,
        principal: Principal,
        *,
        token: str | None = None,
        session_id: str | None = None,
        of_all: bool = False,
    ) -> Session:
        """One session of the caller's, tombstones too: its own by default, with a key any of the key's.

        of_all: of any key. Raises NotFound for what is unknown and for what is another's alike, InvalidParams where
        none is named, or two.
        """
        if token is not None and session_id is not None:
            raise InvalidParams.field("session_id", "names the session a second time: give `token` or `session_id`")
        if token is not None:
            found = await self.tokens.find(principal, token, of_all)
            session = found.session if found else None
        else:
            session = await self._by_id(principal, session_id, of_all)
        if session is None or not (of_all or _owns(principal, session)):
            raise NotFound("no such session")
        return session

    async def _by_id(self, principal: Principal, session_id: str | None, of_all: bool) -> Session | None:
        gateway = principal.via == "gateway"
        named = GATEWAY_PREFIX + session_id if gateway and session_id is not None else session_id
        wanted = principal.session if named is None else named
        if wanted is None:
            raise InvalidParams.field("token", "a caller with a key has to name a session: give `token`", "missing")
        if not SESSION_ID.fullmatch(wanted.removeprefix(GATEWAY_PREFIX) if gateway or of_all else wanted):
            return None
        return await self._database.read(lambda connection: statements.find_session(connection, wanted))

    async def page(self, wanted: Wanted) -> Page:
        """Sessions in pages, tombstones too, the newest first."""
        return await self._database.read(lambda connection: list_sessions(connection, wanted))

    def over(self, session: Session) -> str | None:
        """Why a session takes no calls at this instant, noticed or not; None while it does."""
        error = self._use.ended(session, self._database.now())
        return None if error is None else str(error.data["reason"])

    def left(self, session: Session) -> tuple[int | None, int | None]:
        """Whole seconds that its fixed and its idle clock have left; None where it has no such clock."""
        now = self._database.now()
        fixed = None if session.expires_at is None else _seconds(session.expires_at, now)
        if session.idle_timeout is None or session.idle_expires_at is None:
            return fixed, None
        return fixed, int(session.idle_timeout) if session.id in self._use else _seconds(session.idle_expires_at, now)


def _owns(principal: Principal, session: Session) -> bool:
    if principal.session is not None:
        return session.id == principal.session
    return session.key == principal.key


def _seconds(end: datetime, now: datetime) -> int:
    return max(0, math.ceil((end - now).total_seconds()))
