"""What sessions take, kept where all nodes see it: the port, and the double that lives in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dataproc.types import Usage


class Usages(Protocol):
    """What was noted of the sessions of all nodes. All may raise StorageUnavailable."""

    async def note(self, taken: Mapping[str, Usage]) -> None:
        """These sessions take so much now. Of a session that is over nothing is kept."""
        ...

    async def add(self, taken: Mapping[str, Usage]) -> None:
        """The same, for those of which nothing is noted yet."""
        ...

    async def of(self, session_id: str) -> Usage:
        """What a session takes, as `sums` has it: nothing where nothing is noted, or where it is being ended."""
        ...

    async def sums(self, keys: Collection[str], but: Collection[str]) -> dict[str, Usage]:
        """What the sessions of each key take together, but for some. Sessions that are being ended take nothing."""
        ...

    async def over(self, sessions: Collection[str]) -> set[str]:
        """Those of the sessions that are over, and have no files any more."""
        ...

    async def missing(self, after: str, limit: int) -> list[str]:
        """Sessions of which nothing is noted, in the order of their ids, from the one after that id on."""
        ...


@dataclass
class MemoryUsages:
    """Usages of nodes that live in one process. keys: sessions that live, and whose they are; what ends, leaves it."""

    keys: dict[str, str] = field(default_factory=dict)
    noted: dict[str, Usage] = field(default_factory=dict)

    async def note(self, taken: Mapping[str, Usage]) -> None:
        self.noted |= {session: usage for session, usage in taken.items() if session in self.keys}

    async def add(self, taken: Mapping[str, Usage]) -> None:
        await self.note({session: usage for session, usage in taken.items() if session not in self.noted})

    async def of(self, session_id: str) -> Usage:
        return self.noted.get(session_id, Usage()) if session_id in self.keys else Usage()

    async def sums(self, keys: Collection[str], but: Collection[str]) -> dict[str, Usage]:
        found: dict[str, Usage] = {}
        for session, usage in self.noted.items():
            key = self.keys.get(session)
            if key is not None and key in keys and session not in but:
                found[key] = found.get(key, Usage()) + usage
        return found

    async def over(self, sessions: Collection[str]) -> set[str]:
        return {session for session in sessions if session in self.noted and session not in self.keys}

    async def missing(self, after: str, limit: int) -> list[str]:
        return sorted(session for session in self.keys if session > after and session not in self.noted)[:limit]
