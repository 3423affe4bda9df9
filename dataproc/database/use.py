"""Which sessions are in use in this process: counted in memory, written down for the idle clocks."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from dataproc.database.records import Session, ended, over
from dataproc.database.statements import postpone_idleness
from dataproc.errors import SessionEnded

if TYPE_CHECKING:
    from dataproc.database.core import Database


class Use:
    """Runs and transfers under way, and the activity that winds the clocks of sessions that have an idle one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running: dict[str, int] = {}
        self._idling: set[str] = set()  # sessions that have an idle clock and were met here
        self._active: set[str] = set()  # those whose clocks are to be wound,
        self._winding: set[str] = set()  # and those whose clocks are being wound just now

    def __contains__(self, session_id: str) -> bool:
        """Whether its idle clock stands still, or is about to be wound."""
        return session_id in self._running or session_id in self._active or session_id in self._winding

    def met(self, session: Session) -> None:
        """The session takes calls here."""
        if session.idle_timeout is not None:
            self._idling.add(session.id)

    def over(self, session_id: str) -> None:
        """The session is over."""
        self._idling.discard(session_id)
        self._active.discard(session_id)

    def ended(self, session: Session, now: datetime) -> SessionEnded | None:
        """What a caller is told of a session that takes no calls, by its state and both its clocks; None while it does.

        Time that ran out is seen at that instant, whether or not somebody has ended the session yet.
        """
        if error := over(session, now):
            return error
        idle_since = session.idle_expires_at
        if idle_since is None or idle_since > now or session.id in self:
            return None
        return ended(session.id, "idle", idle_since)

    def begin(self, session_id: str) -> None:
        """A run or a transfer begins."""
        self._running[session_id] = self._running.get(session_id, 0) + 1
        self.touch(session_id)

    def finish(self, session_id: str) -> None:
        """One that `begin` told of has ended."""
        left = self._running[session_id] - 1
        if left:
            self._running[session_id] = left
        else:
            del self._running[session_id]
        self.touch(session_id)

    def touch(self, session_id: str) -> None:
        """Activity."""
        if session_id in self._idling:
            self._active.add(session_id)

    def running(self, session_id: str) -> int:
        """How many runs and transfers are under way."""
        return self._running.get(session_id, 0)

    @property
    def busy(self) -> int:
        """How many runs and transfers are under way in all sessions."""
        return sum(self._running.values())

    async def wind(self) -> None:
        """Write down which sessions were used since last time, those with something under way too."""
        active = self._active | (self._idling & self._running.keys())
        if not active:
            return
        now = self._database.now()
        self._active, self._winding = set(), active
        try:
            await self._database.write(lambda connection: postpone_idleness(connection, active, now))
        except BaseException:
            self._active |= active
            raise
        finally:
            self._winding = set()
