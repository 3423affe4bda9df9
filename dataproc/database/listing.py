"""Sessions in pages, the newest first."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, select, tuple_

from dataproc.database.records import Session, State, session_of
from dataproc.database.tables import micros, sessions
from dataproc.errors import InvalidParams
from dataproc.types import GATEWAY_PREFIX

MOST = 1000  # sessions of a page
_READ = 500  # rows looked at in one go where labels decide


class Place(NamedTuple):
    """After which session a page begins."""

    created_at: int
    id: str

    @classmethod
    def of(cls, cursor: str) -> Place:
        """The place that a cursor names. Raises InvalidParams for one that this server did not give."""
        try:
            created_at, session_id = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
            if type(created_at) is int and type(session_id) is str and 0 <= created_at < 2**63:
                return cls(created_at, session_id)
        except (ValueError, TypeError, binascii.Error, RecursionError):
            pass
        raise InvalidParams.field("cursor", "is none that this method gave")

    @property
    def cursor(self) -> str:
        """As text."""
        return base64.urlsafe_b64encode(json.dumps(list(self), separators=(",", ":")).encode()).decode()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sessions. key: None for those of all keys. labels: those that it has, among others."""

    key: str | None
    state: State | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    after: Place | None = None
    limit: int = 100


class Page(NamedTuple):
    """Sessions, and where the next page begins; None where this was the last."""

    sessions: list[Session]
    next: Place | None


def list_sessions(connection: Connection, wanted: Wanted) -> Page:
    """A page. Sessions that end with one call are left out: nobody but that call ever knew them."""
    found: list[Session] = []
    for row in _rows(connection, wanted):
        session = session_of(row)
        if wanted.labels.items() <= session.labels.items():
            found.append(session)
            if len(found) > wanted.limit:
                last = found[wanted.limit - 1]
                return Page(found[: wanted.limit], Place(micros(last.created_at), last.id))
    return Page(found, None)


def _rows(connection: Connection, wanted: Wanted) -> Iterator[Row[Any]]:
    query, after = _query(wanted), wanted.after
    size = _READ if wanted.labels else wanted.limit + 1
    place = tuple_(sessions.c.created_at, sessions.c.id)
    while True:
        page = query if after is None else query.where(place < tuple_(after.created_at, after.id))
        rows = connection.execute(page.limit(size)).all()
        yield from rows
        if len(rows) < size:
            return
        after = Place(rows[-1].created_at, rows[-1].id)


def _query(wanted: Wanted) -> Select[Any]:
    query = select(sessions).where(sessions.c.one_shot_of.is_(None))
    if wanted.key is not None:
        # a gateway may name our keys, but its sessions are its own
        query = query.where(sessions.c.key_id == wanted.key, sessions.c.id.not_like(f"{GATEWAY_PREFIX}%"))
    if wanted.state is not None:
        query = query.where(sessions.c.state == wanted.state)
    for pair in wanted.labels.items():
        # coarse: it spares reading most of the others; the labels themselves are compared later
        text = json.dumps(dict([pair]))[1:-1]
        query = query.where(sessions.c.labels.contains(text, autoescape=True))
    return query.order_by(sessions.c.created_at.desc(), sessions.c.id.desc())
