"""The half of `Sessions` that the reaper and the executor work with: sessions in use, and their ends."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from dataproc.database import Database, statements
from dataproc.database.counts import OpenCounts
from dataproc.database.fresh import Fresh
from dataproc.database.records import Reason, Session, ended
from dataproc.database.statements import Due
from dataproc.sessions.tokens import Tokens
from dataproc.settings import Settings
from dataproc.types import SERVER, Actor

CACHED = 4096  # sessions remembered at once


class Endings:
    """See `Sessions`."""

    def __init__(self, database: Database, settings: Settings, node: str = "") -> None:
        """node: the server's name; one-shot sessions end with its life."""
        self._database = database
        self._settings = settings
        self._node = node
        self._fresh: Fresh[str, Session] = Fresh(database.clock, settings.credential_cache, CACHED)
        self._counts = OpenCounts(database)
        self._use = database.use
        self.tokens = Tokens(database)
        self.draining = False

    # -------------------------------------------------------------------------------------------------- in use

    def enter(self, session_id: str) -> None:
        """A run or a transfer begins. Raises SessionEnded where this server has begun to end the session."""
        if session_id in self._database.gone:
            raise ended(session_id, "closing", self._database.now())
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

    async def begin_end(self, session_id: str, reason: Reason, by: Actor = SERVER) -> Session | None:
        """Let a session take no calls any more; how it stands, or None where there is nothing to end.

        That is an unknown session, an ended one, and one whose clock was wound after it had been found due.
        """
        if reason == "idle" and session_id in self._use:
            return None
        gone, now = self._database.gone, self._database.now()
        gone.add(session_id)
        try:
            ending = await self._database.write(
                lambda connection: statements.begin_end(connection, session_id, reason, now, by.name)
            )
        except Exception:
            gone.discard(session_id)
            raise
        if ending is None or ending.session.state == "open":
            gone.discard(session_id)
            return None
        gone.taken(session_id)
        self._fresh.drop(session_id)
        session = ending.session
        if ending.begun:
            self._counts.ended(session.key)
            self.tell_end(session, by)
        return session if session.state == "closing" else None

    async def begin_end_all(self, due: Iterable[Due]) -> list[Session]:
        """The same for many that nobody asked for, in one transaction: those that are to be seen to their end now."""
        now, gone = self._database.now(), self._database.gone
        wanted = [each for each in due if each.reason != "idle" or each.id not in self._use]
        for each in wanted:
            gone.add(each.id)
        try:
            closing, begun = await self._database.write(
                lambda connection: statements.begin_end_all(connection, wanted, now, SERVER.name)
            )
        except Exception:
            for each in wanted:
                gone.discard(each.id)
            raise
        for left in {each.id for each in wanted} - {session.id for session in closing}:
            gone.discard(left)
        for session in closing:
            gone.taken(session.id)
            self._fresh.drop(session.id)
            if session.id in begun:
                self._counts.ended(session.key)
        return closing

    async def busy_elsewhere(self, ids: Iterable[str]) -> set[str]:
        """Those of the sessions that have runs on other nodes, as far as these are on record."""
        wanted = list(ids)
        return await self._database.read(
            lambda connection: statements.find_busy_elsewhere(connection, wanted, self._node)
        )

    def tell_end(self, session: Session, by: Actor = SERVER) -> None:
        """Put the end of a session into the audit log."""
        if not session.one_shot:
            told = {"key": session.key, "session": session.id}
            self._database.audit.tell("session_ended", by, **told, reason=session.reason)

    def grace(self, session: Session) -> float:
        """Seconds for which the files of a session are kept after its end; 0 where nobody could restore it."""
        return 0 if session.one_shot or session.gateway else self._settings.grace_period

    async def finish_end(self, session_id: str, grace: float = 0) -> None:
        """A closing session becomes a tombstone; for `grace` seconds it can be restored, its files are kept so long."""
        until = self._database.now() + timedelta(seconds=grace) if grace else None
        await self._database.write(lambda connection: statements.finish_end(connection, session_id, until))
        self._use.over(session_id)

    async def finish_end_all(self, done: Iterable[Session]) -> None:
        """The same for many, in one transaction."""
        now = self._database.now()
        tombs = [(each.id, timedelta(seconds=grace) if (grace := self.grace(each)) else None) for each in done]
        rows = [(session_id, None if grace is None else now + grace) for session_id, grace in tombs]
        if rows:
            await self._database.write(lambda connection: statements.finish_end_all(connection, rows))
        for session_id, _ in rows:
            self._use.over(session_id)

    async def late(self, limit: int) -> list[str]:
        """Ended sessions whose files have been kept long enough."""
        now = self._database.now()
        return await self._database.read(lambda connection: statements.find_kept(connection, now, limit))

    async def begin_scrap(self, session_id: str) -> bool:
        """Give up such files: from now on nobody can restore the session. False where somebody just did."""
        now = self._database.now()
        return await self._database.write(lambda connection: statements.begin_scrap(connection, session_id, now))

    async def finish_scrap(self, session_id: str) -> None:
        """The files are gone."""
        await self._database.write(lambda connection: statements.finish_scrap(connection, session_id))

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
        """Delete tombstones, and audit lines, older than they are kept, at most `limit` each; how many of the more."""
        before = self._database.now() - timedelta(seconds=self._settings.tombstone_retention)
        forgotten = await self._database.write(lambda connection: statements.forget(connection, before, limit))
        audit_before = self._database.now() - timedelta(seconds=self._settings.audit_retention)
        return max(forgotten, await self._database.audit.forget(audit_before, limit))
