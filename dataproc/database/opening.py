"""Opening a session: what may be asked for, and the transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import cast

from sqlalchemy import Connection

from dataproc.database import statements
from dataproc.database.counts import refuse_above
from dataproc.database.issuing import require_key
from dataproc.database.records import Reason, Session
from dataproc.database.secret import digest, new_uuid
from dataproc.database.tables import micros, moment
from dataproc.database.use import Use
from dataproc.errors import InvalidParams
from dataproc.settings import Settings

NAME_LENGTH = 200
LABELS = 64


def lifetime(expires_in: object, settings: Settings) -> int:
    """The seconds that `expires_in` asks for. Raises InvalidParams, naming the field."""
    most = settings.max_expires_in
    return min(settings.default_expires_in, most) if expires_in is None else whole("expires_in", expires_in, most)


def whole(field: str, asked: object, most: int) -> int:
    """A whole number of seconds from 1 to `most`. Raises InvalidParams, naming the field."""
    is_whole = isinstance(asked, int) or (isinstance(asked, float) and asked.is_integer())
    if isinstance(asked, bool) or not is_whole:
        raise InvalidParams.field(field, "must be a whole number of seconds, or null", "int_type")
    assert isinstance(asked, int | float)
    if asked <= 0:
        raise InvalidParams.field(field, "must be above 0", "greater_than")
    if asked > most:
        raise InvalidParams.field(field, f"must be at most {most}, the server's limit", "less_than_equal")
    return int(asked)


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

    limits: how many the key may have open, and all keys together; None where a place was taken before.
    """

    session: Session
    scopes: str
    one_shot_of: str | None
    now: datetime
    use: Use
    limits: tuple[int, int] | None = None
    token: str = field(default_factory=new_uuid, repr=False)

    def run(self, connection: Connection) -> Session:
        """The session that the token opens now: the wanted one, or the live one of its name.

        Raises Unauthorized, Overloaded.
        """
        key = require_key(connection, self.session.key, self.now)
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
        if session is not None and (over := self.use.ended(session, self.now)):
            reason = cast("Reason", over.data["reason"])
            statements.begin_end(connection, session.id, reason, self.now, "server")  # so that its name is free
            return None
        return session

    def _new(self, connection: Connection, key_expires_at: int | None) -> Session:
        session = self.session
        if self.limits is not None:
            own, total = self.limits
            refuse_above(own, statements.count_open(connection, session.key), "DATAPROC_MAX_SESSIONS_PER_KEY")
            refuse_above(total, statements.count_open(connection, None), "DATAPROC_MAX_SESSIONS")
        if key_expires_at is not None and session.expires_at is not None:
            session = replace(session, expires_at=min(session.expires_at, moment(key_expires_at)))
        statements.add_session(connection, session, self.one_shot_of)
        return session
