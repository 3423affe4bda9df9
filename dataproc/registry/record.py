"""`Record`: what the registry knows of one module, and how that is listed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dataproc.errors import ModuleNotFound
from dataproc.registry.copies import Signature
from dataproc.registry.entry import ModuleEntry
from dataproc.registry.sources import Source

RETRY = 30.0  # seconds until broken code may be tried again: something it needs may have been installed


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the code that was tried last cannot be used, and when that was found."""

    reason: str
    at: float


@dataclass(slots=True, eq=False)
class Record:
    """One module: where it is, what its folder was seen as, the entry in force, the fault of what was tried last."""

    name: str
    source: Source
    seen: Signature | None = None
    entry: ModuleEntry | None = None
    fault: Fault | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def in_use(self) -> bool:
        """Whether somebody needed it before."""
        return self.entry is not None or self.fault is not None

    def may_try(self, now: float) -> bool:
        """Whether an attempt to describe it makes sense."""
        return self.entry is None and (self.fault is None or now - self.fault.at >= RETRY)

    def ready(self) -> ModuleEntry:
        """The entry in force; ModuleNotFound with the reason where there is none."""
        if self.entry is None:
            reason = self.fault.reason if self.fault is not None else "it was not described"
            summary = reason.partition("\n")[0]
            raise ModuleNotFound(f"module {self.name!r} is broken: {summary}", module=self.name, reason=reason)
        return self.entry

    def row(self, alias_served: bool) -> dict[str, Any]:
        """The module's element of the list."""
        entry, fault = self.entry, self.fault
        row: dict[str, Any] = {
            "name": self.name,
            "aliases": [entry.alias] if entry is not None and alias_served else [],
            "version": entry.version if entry is not None else "",
            "description": entry.description if entry is not None else "",
            "state": "ready" if entry is not None else "broken",
            "methods": list(entry.methods) if entry is not None else [],
        }
        if entry is None:
            row["error"] = fault.reason if fault is not None else "it could not be described; try again"
        elif fault is not None:
            row["reload_error"] = fault.reason
        if entry is not None and not alias_served and entry.alias != self.name:
            row["warnings"] = [f"the alias {entry.alias!r} is another module's too, and is not served"]
        return row


def claims(records: Iterable[Record], names: Iterable[str]) -> dict[str, list[Record]]:
    """Which modules claim each alias that is no module's own name. Where two do, nobody gets it."""
    taken, found = set(names), dict[str, list[Record]]()
    for record in records:
        if record.entry is not None and record.entry.alias not in taken:
            found.setdefault(record.entry.alias, []).append(record)
    return found
