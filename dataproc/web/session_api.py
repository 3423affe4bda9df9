"""`session.*`: open a session, look at it, close it."""

from __future__ import annotations

from typing import Any

from dataproc.errors import Forbidden, InvalidParams, NotFound, Overloaded
from dataproc.sessions import Session
from dataproc.settings import Settings
from dataproc.types import Json, JsonObject, rfc3339, wire_id
from dataproc.web.exchange import Exchange
from dataproc.web.methods import RpcMethod
from dataproc.web.params import Param, Signature, any_text, or_null, string_map, text, whole

_TOKEN: JsonObject = {"type": "string"}
_TIME: JsonObject = {"type": ["string", "null"], "format": "date-time"}


def session_methods(settings: Settings) -> tuple[RpcMethod, ...]:
    """The table of the session endpoints."""
    return (
        RpcMethod(
            "session.open_session",
            open_session,
            "Open a session: a directory of its own, and the token to it.",
            Signature(_opening(settings)),
            {
                "type": "object",
                "properties": {
                    "access_token": {"type": "string", "format": "uuid"},
                    "expires_in": {"type": "integer"},
                    "session_id": {"type": "string"},
                },
                "required": ["access_token", "expires_in", "session_id"],
            },
            needs="session.open",
            errors=(Overloaded,),
        ),
        RpcMethod(
            "session.verify_session_token",
            verify_session_token,
            "Whether a token opens a session of the caller's now.",
            Signature((Param("token", any_text, _TOKEN, "The token to look at."),)),
            {"type": "object", "properties": {"active": {"type": "boolean"}}, "required": ["active"]},
        ),
        RpcMethod(
            "session.close_session",
            close_session,
            "End the token's session. Its directory is out of reach when the answer arrives.",
            Signature((Param("token", any_text, _TOKEN, "The token of the session to end."),)),
            {"const": True},
        ),
        RpcMethod(
            "session.get_session",
            get_session,
            "How a session stands; the caller's own where none is named.",
            Signature(
                (
                    Param("token", or_null(any_text), {"type": ["string", "null"]}, "A token of the session.", None),
                    Param("session_id", or_null(any_text), {"type": ["string", "null"]}, "The session's id.", None),
                )
            ),
            _SESSION,
            errors=(NotFound,),
        ),
    )


def _opening(settings: Settings) -> tuple[Param, ...]:
    most = settings.max_expires_in
    life: JsonObject = {"type": ["integer", "null"], "minimum": 1, "maximum": most}
    labels: JsonObject = {"type": ["object", "null"], "additionalProperties": {"type": "string"}}
    return (
        Param("expires_in", or_null(whole(1, most)), life, "Seconds; null is the server's default.", None),
        Param("name", or_null(text), {"type": ["string", "null"], "minLength": 1}, "A name for lists.", None, True),
        Param("labels", or_null(string_map), labels, "Labels for lists.", None, True),
    )


async def open_session(exchange: Exchange, expires_in: int | None, name: str | None, labels: Any) -> Json:
    """A fresh session and its token."""
    if exchange.principal.via != "key":
        raise Forbidden("a session is opened with a key, not from inside a session", scope="session.open")
    opened = await exchange.system.sessions.open(exchange.principal, expires_in=expires_in, name=name, labels=labels)
    return {
        "access_token": opened.access_token,
        "expires_in": opened.expires_in,
        "session_id": opened.session.id,
        "expires_at": _when(opened.session.expires_at),
    }


async def verify_session_token(exchange: Exchange, token: str) -> Json:
    """Whether the token is good now, for this caller."""
    return {"active": await exchange.system.sessions.verify(exchange.principal, token)}


async def close_session(exchange: Exchange, token: str) -> Json:
    """Always true: a caller learns nothing about tokens that are not its own."""
    session = await exchange.system.sessions.find_to_close(exchange.principal, token)
    if session is not None:
        await exchange.system.reaper.end(session.id, "closed")
    return True


async def get_session(exchange: Exchange, token: str | None, session_id: str | None) -> Json:
    """The record of a session, without its token."""
    if token is not None and session_id is not None:
        raise InvalidParams.field("session_id", "names the session a second time: give `token` or `session_id`")
    return session_view(await exchange.system.sessions.get(exchange.principal, token=token, session_id=session_id))


def session_view(session: Session) -> JsonObject:
    """What a caller is shown of a session."""
    return {
        "session_id": wire_id(session.id),
        "name": session.name,
        "labels": dict(session.labels),
        "state": session.state,
        "reason": session.reason,
        "created_at": _when(session.created_at),
        "expires_at": _when(session.expires_at),
        "ended_at": _when(session.ended_at),
    }


def _when(moment: Any) -> str | None:
    return None if moment is None else rfc3339(moment)


_SESSION: JsonObject = {
    "type": "object",
    "properties": {
        "session_id": {"type": "string"},
        "name": {"type": ["string", "null"]},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "state": {"enum": ["open", "closing", "ended"]},
        "reason": {"type": ["string", "null"]},
        "created_at": _TIME,
        "expires_at": _TIME,
        "ended_at": _TIME,
    },
}
