"""Who has a session whose files lie in a store of objects: the port, and the double that lives in memory.

A node works in a session only under a lease, with a number that grows each time that another takes it. What a node
commits is conditional on its number, so one that was held up, and lost its lease meanwhile, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from dataproc.clock import Clock
from dataproc.types import Dropped, Elsewhere, Lease


class Leases(Protocol):
    """The leases of all nodes, as one of them sees them. All may raise StorageUnavailable."""

    duration: float

    async def take(self, session_id: str) -> Lease | Elsewhere | Dropped:
        """Take a session that nobody has, or go on having it."""
        ...

    async def find(self, session_id: str) -> Elsewhere | None:
        """Who else has a session."""
        ...

    async def revision(self, session_id: str) -> str | None:
        """What the files of a session are now, whoever has it; None where it has none."""
        ...

    async def renew(self, held: dict[str, int]) -> dict[str, float]:
        """Go on having these, by their numbers; those that were not lost, with their new `until`."""
        ...

    async def commit(self, session_id: str, fence: int, revision: str) -> bool:
        """Make a revision the current one; whether the number still counts."""
        ...

    async def publish(self, session_id: str, fence: int, revision: str) -> bool:
        """Note that a revision was copied to plain names; whether the number still counts."""
        ...

    async def release(self, held: dict[str, int]) -> None:
        """Let others have these at once."""
        ...

    async def drop(self, session_id: str) -> None:
        """Let nobody have a session any more: its files are to be deleted."""
        ...

    async def dropped(self) -> list[Dropped]:
        """Sessions whose files have not all been deleted for sure."""
        ...

    async def forget(self, session_id: str) -> None:
        """Nothing is left of a dropped session."""
        ...


@dataclass(frozen=True, slots=True)
class _Row:
    holder: object = None
    fence: int = 0
    until: float = 0.0
    revision: str | None = None
    published: str | None = None
    dropped: float | None = None


class Ledger:
    """What all nodes of one process know of leases in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, _Row] = {}


class MemoryLeases:
    """Leases of nodes that live in one process, and share a ledger."""

    def __init__(self, ledger: Ledger, clock: Clock, duration: float, node: str = "node") -> None:
        self.duration = duration
        self._rows = ledger.rows
        self._clock = clock
        self._node = node

    async def take(self, session_id: str) -> Lease | Elsewhere | Dropped:
        row, now = self._rows.get(session_id, _Row()), self._clock.monotonic()
        if row.dropped is not None:
            return Dropped(session_id, now - row.dropped)
        if row.holder is not self and row.until > now:
            return Elsewhere(self._node, None, row.until - now)
        fence = row.fence if row.holder is self else row.fence + 1
        self._rows[session_id] = row = replace(row, holder=self, fence=fence, until=now + self.duration)
        return Lease(fence, row.revision, row.published, row.until)

    async def find(self, session_id: str) -> Elsewhere | None:
        row, now = self._rows.get(session_id, _Row()), self._clock.monotonic()
        there = row.holder is not self and row.until > now
        return Elsewhere(self._node, None, row.until - now) if there else None

    async def revision(self, session_id: str) -> str | None:
        return self._rows.get(session_id, _Row()).revision

    async def renew(self, held: dict[str, int]) -> dict[str, float]:
        until = self._clock.monotonic() + self.duration
        return {each: until for each, fence in held.items() if self._change(each, fence, until=until)}

    async def commit(self, session_id: str, fence: int, revision: str) -> bool:
        return self._change(session_id, fence, revision=revision)

    async def publish(self, session_id: str, fence: int, revision: str) -> bool:
        return self._change(session_id, fence, published=revision)

    async def release(self, held: dict[str, int]) -> None:
        for each, fence in held.items():
            self._change(each, fence, holder=None, until=0.0)

    async def drop(self, session_id: str) -> None:
        row = self._rows.get(session_id, _Row())
        since = self._clock.monotonic() if row.dropped is None else row.dropped
        self._rows[session_id] = _Row(fence=row.fence + 1, dropped=since)

    async def dropped(self) -> list[Dropped]:
        now = self._clock.monotonic()
        return [Dropped(each, now - row.dropped) for each, row in self._rows.items() if row.dropped is not None]

    async def forget(self, session_id: str) -> None:
        self._rows.pop(session_id, None)

    def _change(self, session_id: str, fence: int, **changes: object) -> bool:
        row = self._rows.get(session_id)
        if row is None or row.fence != fence or row.holder is not self:
            return False
        self._rows[session_id] = replace(row, **changes)  # type: ignore[arg-type]
        return True
