"""Which node has a session: asked, believed for a while, and waited for."""

from __future__ import annotations

import asyncio

import structlog

from dataproc.clock import Clock
from dataproc.errors import Conflict, SessionEnded
from dataproc.storage.backend import bounded
from dataproc.storage.object_store.leases import Leases
from dataproc.types import Dropped, Elsewhere, Lease, rfc3339

BELIEVED = 1.0  # seconds for which another node's lease is believed without asking again
MOST_BELIEVED = 8192
GRACE = 0.5  # seconds that are waited longer than a lease has left

_log = structlog.get_logger("dataproc.storage")


class Holding:
    """The leases, as who has to come by one sees them."""

    def __init__(self, leases: Leases, clock: Clock) -> None:
        self._leases, self._clock = leases, clock
        self._others: dict[str, tuple[Elsewhere, float]] = {}

    async def elsewhere(self, session_id: str) -> Elsewhere | None:
        """Which other node has a session that is not here."""
        now = self._clock.monotonic()
        believed = self._others.get(session_id)
        if believed is not None and believed[1] > now:
            return believed[0]
        found = await self._leases.find(session_id)
        self._others.pop(session_id, None)
        if found is not None:
            bounded(self._others, MOST_BELIEVED)
            self._others[session_id] = found, now + min(BELIEVED, found.seconds)
        return found

    async def take(self, session_id: str) -> Lease:
        """The lease, waited for as long as one that is not renewed can last. Raises Conflict, SessionEnded."""
        begun = self._clock.monotonic()
        while True:
            match await self._leases.take(session_id):
                case Lease() as lease:
                    return lease
                case Dropped():
                    at = rfc3339(self._clock.now())
                    raise SessionEnded("the session has ended; open a new one", reason="closing", ended_at=at)
                case Elsewhere(node, _, seconds):
                    waited = self._clock.monotonic() - begun
                    if waited > self._leases.duration + GRACE:
                        _log.warning("storage.session_elsewhere", session_id=session_id, holder=node)
                        raise Conflict(
                            "another server has the session, and cannot be reached from here", reason="lease"
                        )
                    await asyncio.sleep(min(seconds, self._leases.duration) + GRACE / 10)
