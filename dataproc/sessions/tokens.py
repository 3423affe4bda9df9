"""The tokens of sessions: verified, issued, taken back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dataproc.database import Database, issuing, statements
from dataproc.database.issuing import Issuing
from dataproc.database.records import Session
from dataproc.database.secret import digest
from dataproc.database.statements import Token
from dataproc.errors import Forbidden, NotFound
from dataproc.types import SERVER, Actor, Principal


@dataclass(frozen=True, slots=True)
class Issued:
    """A further token. expires_in: whole seconds that it has; None in a session without an end."""

    access_token: str
    expires_in: int | None
    session: Session
    scopes: frozenset[str]


class Tokens:
    """The tokens of this database. Everything may raise StorageUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, principal: Principal, token: str, of_all: bool = False) -> Token | None:
        """The record of a token of the caller's key, or with `of_all` of any; None for all others."""
        proof = digest(token)
        found = await self._database.read(lambda connection: statements.find_token(connection, proof))
        return found if found is not None and (of_all or found.key == principal.key) else None

    async def verify(self, principal: Principal, token: str) -> bool:
        """Whether `token` is one of the caller's key, and opens a session now."""
        found = await self.find(principal, token)
        now = self._database.now()
        if found is None or found.revoked_at is not None or (found.expires_at is not None and found.expires_at <= now):
            return False
        return self._database.use.ended(found.session, now) is None

    async def issue(
        self, principal: Principal, session: Session, scopes: Iterable[str], life: int | None, by: Actor = SERVER
    ) -> Issued:
        """A further token to `session`, for somebody who is to have those scopes (some of the caller's) alone.

        One that a token's holder gets ends with that token. life: seconds; None for as long as parent and session.
        Raises Forbidden in a gateway's session, SessionEnded, Unauthorized.
        """
        if session.gateway:
            raise Forbidden("the session is a gateway's, which has tokens of its own", scope="session.manage")
        now, given = self._database.now(), frozenset(scopes)
        words = " ".join(sorted(given))
        issue = Issuing(session.id, principal.key, principal.token, words, life, now, self._database.use)
        session, ends = await self._database.write(issue.run)
        told = {"token_id": issue.id, "scopes": words}
        self._database.audit.tell("token_issued", by, key=principal.key, session=session.id, **told)
        left = None if ends is None else math.ceil((ends - now).total_seconds())
        return Issued(issue.token, left, session, given)

    async def revoke(self, principal: Principal, token: str, by: Actor = SERVER) -> None:
        """Take a token back, and all that were issued from it: a key any of its own, a token those of its session.

        Raises NotFound for what is unknown and for what is another's alike.
        """
        found = await self.find(principal, token)
        if found is None or (principal.session is not None and found.session.id != principal.session):
            raise NotFound("no such token")
        await self.revoke_known(found, by)

    async def revoke_known(self, token: Token, by: Actor = SERVER) -> None:
        """Take back one that was found; its session lives on."""
        now = self._database.now()
        ended = await self._database.write(lambda connection: issuing.revoke(connection, token.id, now))
        for each in ended:
            self._database.gone.add(each)
        if ended:
            self._database.audit.tell(
                "token_revoked", by, key=token.key, session=token.session.id, token_id=token.id, tokens=len(ended)
            )
