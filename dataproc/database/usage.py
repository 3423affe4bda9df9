"""How much of the server each key uses."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from dataproc.database.tables import keys, runs, sessions


@dataclass(slots=True)
class KeyUse:
    """One key: its sessions by state, and how many of its runs are on record. name: None for a gateway's."""

    key: str
    name: str | None = None
    sessions: dict[str, int] = field(default_factory=lambda: {"open": 0, "closing": 0, "ended": 0})
    runs: int = 0


def use_by_key(connection: Connection) -> list[KeyUse]:
    """Every key that is used, or could be, the busiest first. Sessions that ended with their call are not counted."""
    living = select(keys.c.id, keys.c.name).where(keys.c.revoked_at.is_(None))
    found = {row.id: KeyUse(row.id, row.name) for row in connection.execute(living)}
    counted = select(sessions.c.key_id, sessions.c.state, func.count()).where(sessions.c.one_shot_of.is_(None))
    for key, state, count in connection.execute(counted.group_by(sessions.c.key_id, sessions.c.state)):
        found.setdefault(key, KeyUse(key)).sessions[state] = count
    for key, count in connection.execute(select(runs.c.key_id, func.count()).group_by(runs.c.key_id)):
        found.setdefault(key, KeyUse(key)).runs = count
    names = {row.id: row.name for row in connection.execute(select(keys.c.id, keys.c.name))}
    for use in found.values():
        use.name = names.get(use.key)
    return sorted(found.values(), key=lambda use: (-use.sessions["open"], -use.runs, use.key))
