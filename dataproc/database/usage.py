"""How much of the server each key uses, and what its sessions take: implements `storage.usage.usages.Usages`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    String,
    bindparam,
    cast,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from dataproc.database.core import Database
from dataproc.database.statements import OVER
from dataproc.database.tables import keys, runs, session_usage, sessions
from dataproc.types import Usage

CHUNK = 500  # sessions in one statement
_WANTED: ColumnElement[str] = bindparam("wanted", type_=String)
_KEPT = sessions.c.kept_until > 0  # ended, and may be restored
_LIVES = or_(sessions.c.state == "open", _KEPT)  # one that is being ended gives back what it takes
_HAS_FILES = or_(sessions.c.state != "ended", _KEPT)
_AMONG = bindparam("among", expanding=True, type_=String)
_BUT = bindparam("but", expanding=True, type_=String)
_JOINED = session_usage.join(sessions, sessions.c.id == session_usage.c.session_id)
_NOTED = select(session_usage.c.session_id).where(session_usage.c.session_id.in_(_AMONG))
_OF = select(session_usage.c.bytes, session_usage.c.files).select_from(_JOINED).where(sessions.c.id == _WANTED, _LIVES)
_SUMS = (
    select(session_usage.c.key_id, func.sum(session_usage.c.bytes), func.sum(session_usage.c.files))
    .select_from(_JOINED)
    .where(session_usage.c.key_id.in_(_AMONG), session_usage.c.session_id.not_in(_BUT), _LIVES)
    .group_by(session_usage.c.key_id)
)
_OVER = select(sessions.c.id).where(sessions.c.id.in_(_AMONG), *OVER)
_MISSING = (
    select(sessions.c.id)
    .where(_LIVES, sessions.c.id > bindparam("after", type_=String))
    .where(~exists().where(session_usage.c.session_id == sessions.c.id))
    .order_by(sessions.c.id)
    .limit(bindparam("most", type_=BigInteger))
)
_BYTES: ColumnElement[int] = bindparam("bytes_now", type_=BigInteger)
_FILES: ColumnElement[int] = bindparam("files_now", type_=BigInteger)
_CHANGE = update(session_usage).where(session_usage.c.session_id == _WANTED).values(bytes=_BYTES, files=_FILES)
_BEGIN = insert(session_usage).from_select(
    ["session_id", "key_id", "bytes", "files"],
    select(sessions.c.id, sessions.c.key_id, cast(_BYTES, BigInteger), cast(_FILES, BigInteger)).where(
        sessions.c.id == _WANTED, _HAS_FILES
    ),
)


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


class DatabaseUsages:
    """What was noted of the sessions of all servers that use the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, taken: Mapping[str, Usage]) -> None:
        """These sessions take so much now. Of a session that is over nothing is kept."""
        await self._written(taken, change=True)

    async def add(self, taken: Mapping[str, Usage]) -> None:
        """The same, for those of which nothing is noted yet."""
        await self._written(taken, change=False)

    async def _written(self, taken: Mapping[str, Usage], *, change: bool) -> None:
        for ids in _chunks(sorted(taken)):  # in one order, or two servers may wait for each other
            rows = [{"wanted": each, "bytes_now": taken[each].bytes, "files_now": taken[each].files} for each in ids]
            work = _writing(rows, change)
            try:
                await self._database.write(work)
            except IntegrityError:  # another server noted one of them, or forgot a session, in the same moment
                await self._database.write(work)

    async def of(self, session_id: str) -> Usage:
        """What a session takes, as `sums` has it: nothing where nothing is noted, or where it is being ended."""
        row = await self._database.read(
            lambda connection: connection.execute(_OF, {"wanted": session_id}).one_or_none()
        )
        return Usage() if row is None else Usage(row.bytes, row.files)

    async def sums(self, keys: Collection[str], but: Collection[str]) -> dict[str, Usage]:
        """What the sessions of each key take together, but for some. Sessions that are being ended take nothing."""
        asked = {"among": list(keys), "but": list(but)}
        rows = await self._database.read(lambda connection: connection.execute(_SUMS, asked).all())
        return {key: Usage(int(size), int(files)) for key, size, files in rows}

    async def over(self, sessions: Collection[str]) -> set[str]:
        """Those of the sessions that are over, and have no files any more."""
        asked = {"among": list(sessions)}
        return await self._database.read(lambda connection: set(connection.scalars(_OVER, asked)))

    async def missing(self, after: str, limit: int) -> list[str]:
        """Sessions of which nothing is noted, in the order of their ids, from the one after that id on."""
        asked = {"after": after, "most": limit}
        return await self._database.read(lambda connection: list(connection.scalars(_MISSING, asked)))


def _writing(rows: Sequence[dict[str, Any]], change: bool) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        noted = set(connection.scalars(_NOTED, {"among": [row["wanted"] for row in rows]}))
        known = [row for row in rows if row["wanted"] in noted]
        if known and change:
            connection.execute(_CHANGE, known)
        if fresh := [row for row in rows if row["wanted"] not in noted]:
            connection.execute(_BEGIN, fresh)

    return work


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]
