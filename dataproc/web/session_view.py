"""What callers are shown of sessions and tokens, and the JSON Schemas of that."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from dataproc.sessions import Issued, Opened, Session
from dataproc.types import Json, JsonObject, rfc3339, wire_id

if TYPE_CHECKING:
    from dataproc.composition import System

_INTEGER: JsonObject = {"type": "integer"}
_MAYBE: JsonObject = {"type": ["integer", "null"]}
_TEXT: JsonObject = {"type": ["string", "null"]}
_TIME: JsonObject = {"type": ["string", "null"], "format": "date-time"}
_SCOPES: JsonObject = {"type": "array", "items": {"type": "string"}}


def _object(required: bool = True, /, **properties: Json) -> JsonObject:
    return {"type": "object", "properties": properties, **({"required": [*properties]} if required else {})}


CLOCKS = _object(expires_in=_MAYBE, idle_expires_in=_MAYBE)
OPENED = _object(
    access_token={"type": "string", "format": "uuid"},
    expires_in=_INTEGER,
    session_id={"type": "string"},
    expires_at=_TIME,
    idle_expires_in=_MAYBE,
    name=_TEXT,
    scopes=_SCOPES,
    created={"type": "boolean"},
)
ISSUED = _object(
    access_token={"type": "string", "format": "uuid"}, expires_in=_MAYBE, scopes=_SCOPES, session_id={"type": "string"}
)
SESSION = _object(
    False,
    id={"type": "string"},
    session_id={"type": "string"},
    key={"type": "string"},
    name=_TEXT,
    labels={"type": "object", "additionalProperties": {"type": "string"}},
    state={"enum": ["open", "closing", "ended"]},
    reason=_TEXT,
    created_at=_TIME,
    expires_at=_TIME,
    ended_at=_TIME,
    ended_by=_TEXT,
    restorable_until=_TIME,
    expires_in=_MAYBE,
    idle_timeout=_MAYBE,
    idle_expires_in=_MAYBE,
    extensions=_INTEGER,
    running=_INTEGER,
    limits=_object(False, lifetime=_INTEGER, extensions=_INTEGER, bytes=_INTEGER, files=_INTEGER),
    usage=_object(False, bytes=_INTEGER, files=_INTEGER),
)
SESSIONS = _object(sessions={"type": "array", "items": SESSION}, cursor=_TEXT)


def clocks(system: System, session: Session) -> JsonObject:
    """What both clocks of an open session have left."""
    fixed, idle = system.sessions.left(session)
    return {"expires_in": fixed, "idle_expires_in": idle}


def opened_view(system: System, opened: Opened) -> JsonObject:
    """A session just opened or restored, with its token: the only time that this is shown."""
    session = opened.session
    return {
        "access_token": opened.access_token,
        "expires_in": opened.expires_in,
        "session_id": session.id,
        "expires_at": _when(session.expires_at),
        "idle_expires_in": system.sessions.left(session)[1],
        "name": session.name,
        "scopes": [*sorted(opened.scopes)],
        "created": opened.created,
    }


def issued_view(issued: Issued) -> JsonObject:
    """A token just issued."""
    return {
        "access_token": issued.access_token,
        "expires_in": issued.expires_in,
        "scopes": [*sorted(issued.scopes)],
        "session_id": issued.session.id,
    }


def session_view(system: System, session: Session, *, of_all: bool = False) -> JsonObject:
    """One session. Time that ran out is shown though nobody has ended the session yet.

    of_all: for an administrator, to whom ids of gateways are shown as they are kept, and may be given so.
    """
    settings, over = system.settings, system.sessions.over(session)
    ran_out = session.state == "open" and over is not None
    ends = session.idle_expires_at if over == "idle" else session.expires_at
    shown = session.id if of_all else wire_id(session.id)
    return {
        "id": shown,
        "session_id": shown,
        "key": session.key,
        "name": session.name,
        "labels": dict(session.labels),
        "state": "closing" if ran_out else session.state,
        "reason": over if ran_out else session.reason,
        "created_at": _when(session.created_at),
        "expires_at": _when(session.expires_at),
        "ended_at": _when(ends if ran_out else session.ended_at),
        "ended_by": "server" if ran_out else session.ended_by,
        "restorable_until": _when(session.kept_until),
        "idle_timeout": None if session.idle_timeout is None else int(session.idle_timeout),
        **(clocks(system, session) if over is None else {"expires_in": None, "idle_expires_in": None}),
        "extensions": session.extensions,
        "running": system.sessions.running(session.id),
        "limits": {
            "lifetime": settings.max_expires_in,
            "extensions": settings.max_extensions,
            "bytes": settings.session_bytes,
            "files": settings.session_files,
        },
    }


def _when(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
