"""The keys that an administrator makes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from dataproc.access.scopes import DEFAULT_SCOPES, join, parse_scopes, split
from dataproc.database import Database
from dataproc.database.secret import digest, new_secret
from dataproc.database.tables import keys, maybe_micros, maybe_moment, micros, moment, sessions, tokens
from dataproc.errors import Conflict, InvalidParams, NotFound
from dataproc.types import SERVER, Actor

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
        by: Actor = SERVER,
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
        self._database.audit.tell(
            "key_created", by, key=key.id, name=name, scopes=join(key.scopes), grants=join(key.grants)
        )
        return key

    async def rotate(self, key_id: str, by: Actor = SERVER) -> NewKey:
        """Give a key a new secret and nothing else: the old one is refused, at once here, within a second elsewhere.

        Its tokens and sessions live on. Raises NotFound, Conflict for a key that was revoked.
        """
        key, secret = await self.get(key_id), new_secret()
        living = keys.c.id == key_id, keys.c.revoked_at.is_(None)

        def work(connection: Connection) -> bytes | None:
            old = connection.execute(select(keys.c.secret_digest).where(*living)).scalar_one_or_none()
            connection.execute(update(keys).where(*living).values(secret_digest=digest(secret)))
            return old

        old = await self._database.write(work)
        if old is None:
            raise Conflict("the key was revoked: make another one")
        self._database.gone.add((key.apikey, old))
        self._database.audit.tell("key_rotated", by, key=key_id, name=key.name)
        return NewKey(
            key.id, key.name, key.apikey, key.scopes, key.grants, key.created_at, key.expires_at, None, secret=secret
        )

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

    async def named(self, word: str) -> Key:
        """The key of that id, or the live one of that name. Raises NotFound."""
        query = select(keys).where(or_(keys.c.id == word, and_(keys.c.name == word, keys.c.revoked_at.is_(None))))
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        if not rows:
            raise NotFound(f"no key has the id or the name {word!r}")
        return min(map(_key, rows), key=lambda key: key.id != word)

    async def revoke(self, key_id: str, by: Actor = SERVER) -> Key:
        """Take a key back: its tokens die and its sessions close, at once here and within the second elsewhere.

        The server's reaper sees the closing sessions to their end. Once more changes nothing. Raises NotFound.
        """
        now = micros(self._database.now())
        ended = await self._database.write(lambda connection: _revoke(connection, key_id, now, by.name))
        for each in (key_id, *(ended or ())):
            self._database.gone.add(each)
        key = await self.get(key_id)
        if ended is not None:
            self._database.audit.tell("key_revoked", by, key=key_id, name=key.name, sessions=len(ended))
        return key


def _revoke(connection: Connection, key_id: str, now: int, by: str) -> list[str] | None:
    """Ids of the sessions that this ended; None where the key was not live."""
    changed = connection.execute(
        update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    if not changed.rowcount:
        return None
    connection.execute(
        update(tokens).where(tokens.c.key_id == key_id, tokens.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    living = sessions.c.key_id == key_id, sessions.c.state == "open"
    ended = list(connection.scalars(select(sessions.c.id).where(*living)))
    ending = {"state": "closing", "reason": "revoked", "ended_at": now, "ended_by": by}
    connection.execute(update(sessions).where(*living).values(**ending))
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
