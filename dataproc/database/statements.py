"""What is asked of, and done to, sessions and their tokens: functions of a connection, for the database's threads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Update,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    text,
    true,
    update,
)

from dataproc.database.records import Reason, Session, session_of
from dataproc.database.tables import (
    NOT_COMPLETED,
    keys,
    maybe_micros,
    maybe_moment,
    micros,
    runs,
    session_usage,
    sessions,
    tokens,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A token's record, with its session. scopes: words separated by spaces."""

    id: str
    key: str
    scopes: str
    expires_at: datetime | None
    revoked_at: datetime | None
    session: Session


class KeyState(NamedTuple):
    """What opening a session has to know of its key, in microseconds."""

    expires_at: int | None
    revoked_at: int | None


class Due(NamedTuple):
    """A session that has to be seen to its end, and why."""

    id: str
    reason: Reason


class Ending(NamedTuple):
    """How a session stands after an attempt to end it, and whether this attempt changed that."""

    session: Session
    begun: bool


def _closing(at: ColumnElement[int], *still: ColumnElement[bool]) -> Update:
    open_one = update(sessions).where(sessions.c.id == bindparam("wanted"), sessions.c.state == "open", *still)
    return open_one.values(state="closing", reason=bindparam("why"), ended_at=at, ended_by=bindparam("who"))


# built once where every call of a session needs them: SQLAlchemy takes longer to build a statement than to run it
_NOW: ColumnElement[int] = bindparam("now", type_=BigInteger)
_SESSION = select(sessions).where(sessions.c.id == bindparam("wanted"))
_TOKEN = (
    select(sessions, *[column.label(f"token_{column.name}") for column in tokens.c])
    .join(tokens, tokens.c.session_id == sessions.c.id)
    .where(tokens.c.digest == bindparam("proof"))
)
_KEY = select(keys.c.expires_at, keys.c.revoked_at).where(keys.c.id == bindparam("wanted")).with_for_update(read=True)
_ADD_SESSION, _ADD_TOKEN = insert(sessions), insert(tokens)
_AT_ONCE = _closing(_NOW)
# on record on whatever node, or waiting for the next start of one: who has such a run is not idle
_UNFINISHED = runs.c.status.in_(["queued", "running"]), text(NOT_COMPLETED)
_AT_REST = ~exists().where(runs.c.session_id == sessions.c.id, *_UNFINISHED)
# the end of a session whose clock ran out is when it did, however late that was noticed
_BEGIN_END: dict[Reason, Update] = {
    "closed": _AT_ONCE,
    "revoked": _AT_ONCE,
    "expired": _closing(sessions.c.expires_at, sessions.c.expires_at <= _NOW),
    "idle": _closing(sessions.c.idle_expires_at, sessions.c.idle_expires_at <= _NOW, _AT_REST),
}
_FINISH_END = (
    update(sessions)
    .where(sessions.c.id == bindparam("wanted"), sessions.c.state == "closing")
    .values(state="ended", kept_until=bindparam("until", type_=BigInteger))
)

OVER = sessions.c.state == "ended", sessions.c.kept_until.is_(None)  # nothing is left of its files
_FORGET_USAGE = delete(session_usage).where(
    session_usage.c.session_id == bindparam("wanted"), exists().where(sessions.c.id == bindparam("wanted"), *OVER)
)


def find_token(connection: Connection, digest: bytes) -> Token | None:
    """The token of that digest. Found by its digest, so the time that it takes tells nothing about the token."""
    row = connection.execute(_TOKEN, {"proof": digest}).one_or_none()
    if row is None:
        return None
    return Token(
        id=row.token_id,
        key=row.token_key_id,
        scopes=row.token_scopes,
        expires_at=maybe_moment(row.token_expires_at),
        revoked_at=maybe_moment(row.token_revoked_at),
        session=session_of(row),
    )


def find_session(connection: Connection, session_id: str) -> Session | None:
    """The session of that id."""
    row = connection.execute(_SESSION, {"wanted": session_id}).one_or_none()
    return None if row is None else session_of(row)


def find_named(connection: Connection, key: str, name: str) -> Session | None:
    """The key's open session of that name."""
    named = select(sessions).where(sessions.c.key_id == key, sessions.c.name == name, sessions.c.state == "open")
    row = connection.execute(named).one_or_none()
    return None if row is None else session_of(row)


def find_key(connection: Connection, key: str) -> KeyState | None:
    """How a key stands; it cannot be revoked by another server before this transaction ends."""
    row = connection.execute(_KEY, {"wanted": key}).one_or_none()
    return None if row is None else KeyState(*row)


def count_open(connection: Connection, key: str | None) -> int:
    """How many sessions a key holds open; None for all keys."""
    query = select(func.count()).where(sessions.c.state == "open")
    return connection.execute(query if key is None else query.where(sessions.c.key_id == key)).scalar_one()


def count_states(connection: Connection) -> dict[str, int]:
    """How many sessions are open, and how many closing."""
    living = select(sessions.c.state, func.count()).where(sessions.c.state.in_(["open", "closing"]))
    counted = {row[0]: row[1] for row in connection.execute(living.group_by(sessions.c.state))}
    return {"open": 0, "closing": 0} | counted


def add_session(connection: Connection, session: Session, one_shot_of: str | None) -> None:
    """A new row."""
    idle = None if session.idle_timeout is None else round(session.idle_timeout * 1_000_000)
    row = {
        "id": session.id,
        "key_id": session.key,
        "state": session.state,
        "name": session.name,
        "labels": json.dumps(dict(session.labels)),
        "created_at": micros(session.created_at),
        "expires_at": maybe_micros(session.expires_at),
        "idle_timeout": idle,
        "idle_expires_at": maybe_micros(session.idle_expires_at),
        "one_shot_of": one_shot_of,
    }
    connection.execute(_ADD_SESSION, [row])


def add_unknown(connection: Connection, session: Session) -> None:
    """A new row, unless there is one of that id."""
    if find_session(connection, session.id) is None:
        add_session(connection, session, None)


def add_token(connection: Connection, row: dict[str, Any]) -> None:
    """A new row; its members are the columns."""
    connection.execute(_ADD_TOKEN, [row])


def begin_end(connection: Connection, session_id: str, reason: Reason, now: datetime, by: str) -> Ending | None:
    """Let an open session take no calls any more, if the reason still holds; None for an unknown one."""
    values = {"wanted": session_id, "why": reason, "now": micros(now), "who": by}
    begun = connection.execute(_BEGIN_END[reason], values).rowcount == 1
    session = find_session(connection, session_id)
    return None if session is None else Ending(session, begun)


def finish_end(connection: Connection, session_id: str, kept_until: datetime | None) -> None:
    """Make a closing session a tombstone, whose files can be restored until that moment."""
    finish_end_all(connection, [(session_id, kept_until)])


def finish_end_all(connection: Connection, ended: Iterable[tuple[str, datetime | None]]) -> None:
    """The same for many."""
    rows = [{"wanted": each, "until": maybe_micros(until)} for each, until in ended]
    connection.execute(_FINISH_END, rows)
    connection.execute(_FORGET_USAGE, [{"wanted": row["wanted"]} for row in rows])


def begin_end_all(connection: Connection, due: Iterable[Due], now: datetime, by: str) -> tuple[list[Session], set[str]]:
    """Let many sessions take no calls any more, as far as the reasons still hold: those that close, and begun here."""
    ids = {reason: [each.id for each in due if each.reason == reason] for reason in ("expired", "idle")}
    begun: set[str] = set()
    clocks = (("expired", sessions.c.expires_at, true()), ("idle", sessions.c.idle_expires_at, _AT_REST))
    for reason, clock, still in clocks:
        run_out = sessions.c.id.in_(ids[reason]), sessions.c.state == "open", clock <= micros(now), still
        ending = {"state": "closing", "reason": reason, "ended_at": clock, "ended_by": by}
        if ids[reason]:
            begun |= set(connection.scalars(update(sessions).where(*run_out).values(**ending).returning(sessions.c.id)))
    closing = select(sessions).where(sessions.c.id.in_([each.id for each in due]), sessions.c.state == "closing")
    return [session_of(row) for row in connection.execute(closing)], begun


def find_busy_elsewhere(connection: Connection, ids: Iterable[str], node: str) -> set[str]:
    """Those of the sessions in which another node has a run under way, or waiting, on record."""
    busy = select(runs.c.session_id).where(runs.c.session_id.in_(list(ids)), *_UNFINISHED, runs.c.node != node)
    return set(connection.scalars(busy))


def find_kept(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Ended sessions whose files need not be kept any more, and are still there."""
    late = select(sessions.c.id).where(sessions.c.kept_until.is_not(None), sessions.c.kept_until <= micros(now))
    return list(connection.scalars(late.order_by(sessions.c.kept_until).limit(limit)))


def begin_scrap(connection: Connection, session_id: str, now: datetime) -> bool:
    """Give up the files of an ended session: it cannot be restored from now on. Whether that still holds."""
    late = update(sessions).where(sessions.c.id == session_id, sessions.c.kept_until <= micros(now))
    return connection.execute(late.values(kept_until=0)).rowcount == 1


def finish_scrap(connection: Connection, session_id: str) -> None:
    """The files are gone."""
    connection.execute(update(sessions).where(sessions.c.id == session_id).values(kept_until=None))
    connection.execute(_FORGET_USAGE, {"wanted": session_id})


def begin_end_of_one_shots(connection: Connection, node: str, now: datetime) -> int:
    """Close the one-shot sessions of a node that has just started: their calls died with its earlier life."""
    left = update(sessions).where(sessions.c.one_shot_of == node, sessions.c.state == "open")
    ending = {"state": "closing", "reason": "closed", "ended_at": micros(now), "ended_by": "server"}
    return connection.execute(left.values(**ending)).rowcount


def keep(connection: Connection, session_id: str) -> None:
    """Let a one-shot session outlive its call."""
    connection.execute(update(sessions).where(sessions.c.id == session_id).values(one_shot_of=None))


def postpone_idleness(connection: Connection, active: Iterable[str], now: datetime) -> None:
    """Wind the idle clocks of sessions that were used until now."""
    wound = update(sessions).where(sessions.c.id == bindparam("session"), sessions.c.state == "open")
    later = sessions.c.idle_timeout + bindparam("now")
    values = [{"session": each, "now": micros(now)} for each in active]
    connection.execute(wound.values(idle_expires_at=later), values)


def find_due(connection: Connection, now: datetime, limit: int) -> list[Due]:
    """Sessions that are closing, or whose clocks have run out; of each kind at most `limit`, the oldest first."""
    moment = micros(now)
    clocks: tuple[tuple[ColumnElement[int], Reason, ColumnElement[bool]], ...] = (
        (sessions.c.expires_at, "expired", true()),
        (sessions.c.idle_expires_at, "idle", _AT_REST),
    )
    closing: Select[Any] = select(sessions.c.id, sessions.c.reason).where(sessions.c.state == "closing")
    found = [Due(*row) for row in connection.execute(closing.order_by(sessions.c.ended_at).limit(limit))]
    for clock, reason, still in clocks:
        run_out = select(sessions.c.id).where(sessions.c.state == "open", clock <= moment, still)
        found += [Due(each, reason) for each in connection.scalars(run_out.order_by(clock).limit(limit))]
    return found


def forget(connection: Connection, ended_before: datetime, limit: int) -> int:
    """Delete old tombstones, with their tokens; returns how many."""
    old = select(sessions.c.id).where(
        sessions.c.state == "ended", sessions.c.ended_at < micros(ended_before), sessions.c.kept_until.is_(None)
    )
    gone = delete(sessions).where(sessions.c.id.in_(old.limit(limit).scalar_subquery()))
    return connection.execute(gone).rowcount
