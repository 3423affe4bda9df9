"""Who calls: credentials in, principal out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from dataproc.access.credentials import Credentials
from dataproc.access.failures import Failures, Seen
from dataproc.access.gateway import Gateways
from dataproc.access.rates import Rates
from dataproc.access.scopes import split
from dataproc.database import Database
from dataproc.database.fresh import Answer, Fresh
from dataproc.database.secret import digest, same
from dataproc.database.statements import find_token
from dataproc.database.tables import keys, maybe_moment
from dataproc.errors import Unauthorized
from dataproc.settings import Settings
from dataproc.types import Principal

CACHED = 4096  # principals remembered at once
_NOBODY = digest("")


class Authenticator:
    """Checks credentials. A good answer is believed for at most `credential_cache` seconds.

    `rates`, `failures` and `seen` are what a server keeps of its callers beside that.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        """Raises ValueError for settings of gateways that cannot be read."""
        self._database = database
        self._gateways = Gateways(settings)
        self.rates = Rates(database.clock, settings)
        self.failures = Failures(database.clock, settings)
        self.seen = Seen(database.clock)
        self._fresh: Fresh[bytes | tuple[str, bytes], Principal] = Fresh(
            database.clock, settings.credential_cache, CACHED
        )

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Who calls. A trusted peer's session id decides, then a token, then a key with its secret.

        Does not suspend while an earlier answer is fresh. Whether the session of a gateway's id still takes calls is
        for `Sessions` to say. Raises Unauthorized, SessionEnded, StorageUnavailable.
        """
        if credentials.session_id is not None and self._gateways.trusts(credentials):
            return self._gateways.principal(credentials)
        if credentials.token is not None:
            return await self._by_token(digest(credentials.token))
        if credentials.api_key is not None and credentials.secret is not None:
            return await self._by_key(credentials.api_key, digest(credentials.secret))
        raise Unauthorized(_what_is_missing(credentials))

    async def _by_token(self, proof: bytes) -> Principal:
        known = self._fresh.get(proof)
        gone = self._database.gone
        if known is not None and known.session not in gone and known.token not in gone:
            return known
        return await self._fresh.ask(proof, lambda: self._ask_token(proof))

    async def _by_key(self, apikey: str, proof: bytes) -> Principal:
        known = self._fresh.get((apikey, proof))
        gone = self._database.gone
        if known is not None and known.key not in gone and (apikey, proof) not in gone:
            return known
        return await self._fresh.ask((apikey, proof), lambda: self._ask_key(apikey, proof))

    async def _ask_token(self, proof: bytes) -> Answer[Principal]:
        token = await self._database.read(lambda connection: find_token(connection, proof))
        if token is None:
            raise Unauthorized("unknown token")
        now = self._database.now()
        use = self._database.use
        if ended := use.ended(token.session, now):
            raise ended
        use.met(token.session)
        if token.revoked_at is not None:
            raise Unauthorized("this token was revoked; its session lives on", reason="revoked")
        if token.expires_at is not None and token.expires_at <= now:
            raise Unauthorized("this token expired; its session lives on", reason="expired")
        scopes = split(token.scopes)
        principal = Principal(token.key, "token", scopes, scopes, token.session.id, token.id)
        return Answer(principal, _rest(now, token.expires_at, token.session.expires_at, token.session.idle_expires_at))

    async def _ask_key(self, apikey: str, proof: bytes) -> Answer[Principal]:
        key = await self._database.read(lambda connection: _find_key(connection, apikey))
        # compared also where there is no such key, so that the time does not tell which names exist
        if not same(proof, _NOBODY if key is None else key.secret_digest) or key is None:
            raise Unauthorized("unknown API key, or the wrong secret for it")
        now = self._database.now()
        if key.revoked_at is not None:
            raise Unauthorized("this key was revoked", reason="revoked")
        expires_at = maybe_moment(key.expires_at)
        if expires_at is not None and expires_at <= now:
            raise Unauthorized("this key expired", reason="expired")
        principal = Principal(key.id, "key", split(key.scopes), split(key.grants))
        return Answer(principal, _rest(now, expires_at))


def _rest(now: datetime, *ends: datetime | None) -> float | None:
    """Seconds until the first of the ends that there are."""
    return min(((end - now).total_seconds() for end in ends if end is not None), default=None)


def _find_key(connection: Connection, apikey: str) -> Row[Any] | None:
    return connection.execute(select(keys).where(keys.c.apikey == apikey)).one_or_none()


def _what_is_missing(credentials: Credentials) -> str:
    if credentials.api_key is not None or credentials.secret is not None:
        return "an API key goes with its secret: send both APIKey and Secret"
    if credentials.gateway_secret is not None:
        return "Xdata-Gateway-Secret is not the one that was set, or came without Xdata-Session-Id"
    return "no credentials: send APIKey and Secret, or Xdata-Session-Token"
