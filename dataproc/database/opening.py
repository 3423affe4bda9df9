"""Opening a session: what may be asked for, and the transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection

from dataproc.database import statements
from dataproc.database.counts import too_many
from dataproc.database.records import Session, over
from dataproc.database.secret import digest, new_uuid
from dataproc.database.tables import micros, moment
from dataproc.errors import InvalidParams, Unauthorized
from dataproc.settings import Settings

NAME_LENGTH = 200
LABELS = 64


def lifetime(expires_in: object, settings: Settings) -> int:
    """The seconds that `expires_in` asks for. Raises InvalidParams, naming the field."""
    most = settings.max_expires_in
    if expires_in is None:
        return min(settings.default_expires_in, most)
    whole = isinstance(expires_in, int) or (isinstance(expires_in, float) and expires_in.is_integer())
    if isinstance(expires_in, bool) or not whole:
        raise InvalidParams.field("expires_in", "must be a whole number of seconds, or null", "int_type")
    assert isinstance(expires_in, int | float)
    if expires_in <= 0:
        raise InvalidParams.field("expires_in", "must be above 0", "greater_than")
    if expires_in > most:
        raise InvalidParams.field("expires_in", f"must be at most {most}, the server's limit", "less_than_equal")
    return int(expires_in)


def check_names(name: str | None, labels: Mapping[str, str] | None) -> None:
    """Raises InvalidParams, naming the field, for a name or labels that cannot be kept."""
    if name is not None and not (0 < len(name) <= NAME_LENGTH and name.isprintable()):
        raise InvalidParams.field("name", f"must be 1 to {NAME_LENGTH} printable characters")
    texts = [text for pair in (labels or {}).items() for text in pair]
    if len(texts) > 2 * LABELS or not all(
        len(text) <= NAME_LENGTH and (not text or text.isprintable()) for text in texts
    ):
        raise InvalidParams.field(
            "labels", f"must be at most {LABELS}, each of at most {NAME_LENGTH} printable characters"
        )


@dataclass(frozen=True, slots=True)
class Opening:
    """A session to be opened at `now`, with a token of those `scopes`, for a key that must still be good.

    limit: how many the key may have open; None where a place was taken before.
    """

    session: Session
    scopes: str
    one_shot_of: str | None
    now: datetime
    limit: int | None = None
    token: str = field(default_factory=new_uuid, repr=False)

    def run(self, connection: Connection) -> Session:
        """The session that the token opens now: the wanted one, or the live one of its name.

        Raises Unauthorized, Overloaded.
        """
        key = statements.find_key(connection, self.session.key)
        if key is None or key.revoked_at is not None or (key.expires_at or micros(self.now) + 1) <= micros(self.now):
            raise Unauthorized("this key is not good any more")
        session = self._named(connection) or self._new(connection, key.expires_at)
        token = {
            "id": new_uuid(),
            "digest": digest(self.token),
            "session_id": session.id,
            "key_id": session.key,
            "scopes": self.scopes,
            "created_at": micros(self.now),
        }
        statements.add_token(connection, token)
        return session

    def _named(self, connection: Connection) -> Session | None:
        if self.session.name is None:
            return None
        session = statements.find_named(connection, self.session.key, self.session.name)
        if session is not None and over(session, self.now):
            statements.begin_end(connection, session.id, "expired", self.now)  # so that its name is free
            return None
        return session

    def _new(self, connection: Connection, key_expires_at: int | None) -> Session:
        session = self.session
        if self.limit is not None and (used := statements.count_open(connection, session.key)) >= self.limit:
            raise too_many(used, self.limit)
        if key_expires_at is not None and session.expires_at is not None:
            session = replace(session, expires_at=min(session.expires_at, moment(key_expires_at)))
        statements.add_session(connection, session, self.one_shot_of)
        return session
