"""The keys that an administrator makes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from dataproc.access.scopes import DEFAULT_SCOPES, join, parse_scopes, split
from dataproc.database import Database
from dataproc.database.secret import digest, new_secret
from dataproc.database.tables import keys, maybe_micros, maybe_moment, micros, moment, sessions, tokens
from dataproc.errors import Conflict, InvalidParams, NotFound

NAME_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without its secret. scopes: what it may call; grants: the most that its tokens may carry."""

    id: str
    name: str
    apikey: str
    scopes: frozenset[str]
    grants: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewKey(Key):
    """A key just made: the only time that its secret is known."""

    secret: str = field(repr=False)


class Keys:
    """Makes, lists and revokes keys, also beside a running server."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        name: str,
        scopes: Iterable[str] | None = None,
        grants: Iterable[str] | None = None,
        expires_in: float | None = None,
    ) -> NewKey:
        """Make a key. scopes: default all but `admin`; grants: default its scopes; expires_in: seconds, default never.

        Raises InvalidParams by field, Conflict where a key of that name lives.
        """
        _check(name, expires_in)
        may = DEFAULT_SCOPES if scopes is None else parse_scopes(scopes, "scopes")
        gives = may if grants is None else parse_scopes(grants, "grants")
        now = self._database.now()
        key = NewKey(
            id=f"key-{secrets.token_hex(8)}",
            name=name,
            apikey=f"dp-{secrets.token_hex(12)}",
            scopes=may,
            grants=gives,
            created_at=now,
            expires_at=None if expires_in is None else now + timedelta(seconds=expires_in),
            revoked_at=None,
            secret=new_secret(),
        )
        try:
            await self._database.write(lambda connection: connection.execute(insert(keys), [_row(key)]))
        except IntegrityError:
            raise Conflict(f"there is a key named {name!r} already: revoke it first, or take another name") from None
        return key

    async def list(self) -> list[Key]:
        """All keys, the revoked ones too, oldest first."""
        query = select(keys).order_by(keys.c.created_at, keys.c.id)
        return [_key(row) for row in await self._database.read(lambda connection: connection.execute(query).all())]

    async def get(self, key_id: str) -> Key:
        """One key. Raises NotFound."""
        query = select(keys).where(keys.c.id == key_id)
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise NotFound("no such key")
        return _key(row)

    async def revoke(self, key_id: str) -> Key:
        """Take a key back: its tokens die and its sessions close, at once here and within the second elsewhere.

        The server's reaper sees the closing sessions to their end. Once more changes nothing. Raises NotFound.
        """
        now = micros(self._database.now())
        ended = await self._database.write(lambda connection: _revoke(connection, key_id, now))
        for each in (key_id, *ended):
            self._database.gone.add(each)
        return await self.get(key_id)


def _revoke(connection: Connection, key_id: str, now: int) -> list[str]:
    changed = connection.execute(
        update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    if not changed.rowcount:
        return []
    connection.execute(
        update(tokens).where(tokens.c.key_id == key_id, tokens.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    living = sessions.c.key_id == key_id, sessions.c.state == "open"
    ended = list(connection.scalars(select(sessions.c.id).where(*living)))
    connection.execute(update(sessions).where(*living).values(state="closing", reason="revoked", ended_at=now))
    return ended


def _check(name: str, expires_in: float | None) -> None:
    if not (name.strip() and len(name) <= NAME_LENGTH and name.isprintable()):
        raise InvalidParams.field("name", f"must be 1 to {NAME_LENGTH} printable characters")
    if expires_in is not None and not 0 < expires_in <= 100 * 365 * 86400:
        raise InvalidParams.field("expires_in", "must be above 0 and at most 100 years, in seconds")


def _row(key: NewKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "apikey": key.apikey,
        "secret_digest": digest(key.secret),
        "scopes": join(key.scopes),
        "grants": join(key.grants),
        "created_at": micros(key.created_at),
        "expires_at": maybe_micros(key.expires_at),
        "revoked_at": None,
    }


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        apikey=row.apikey,
        scopes=split(row.scopes),
        grants=split(row.grants),
        created_at=moment(row.created_at),
        expires_at=maybe_moment(row.expires_at),
        revoked_at=maybe_moment(row.revoked_at),
    )
