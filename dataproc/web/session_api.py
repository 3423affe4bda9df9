"""`session.*`: open a session, look at it, keep it, hand out tokens to it, end it, bring it back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import cast

from dataproc.access import narrowed, require
from dataproc.database.listing import MOST, Place, Wanted
from dataproc.errors import Conflict, Forbidden, InvalidParams, NotFound, Overloaded, QuotaExceeded, SessionEnded
from dataproc.sessions import Reason, Session
from dataproc.settings import Settings
from dataproc.storage import Usage
from dataproc.types import Json, JsonObject, Principal
from dataproc.web.exchange import Exchange
from dataproc.web.methods import RpcMethod
from dataproc.web.params import (
    Param,
    Signature,
    any_text,
    boolean,
    choice,
    or_null,
    string_map,
    text,
    text_list,
    whole,
)
from dataproc.web.session_view import (
    CLOCKS,
    ISSUED,
    OPENED,
    SESSION,
    SESSIONS,
    clocks,
    issued_view,
    opened_view,
    session_view,
)

MANAGE = "session.manage"
_STATES = ("open", "closing", "ended")
_TOKEN: JsonObject = {"type": "string"}
_MAYBE_TEXT: JsonObject = {"type": ["string", "null"]}
_LABELS: JsonObject = {"type": ["object", "null"], "additionalProperties": {"type": "string"}}
_SCOPES: JsonObject = {"type": ["array", "null"], "items": {"type": "string"}, "minItems": 1}

_A_TOKEN = Param("token", or_null(any_text), _MAYBE_TEXT, "A token of the session; the caller's own by default.", None)
_AN_ID = Param("session_id", or_null(any_text), _MAYBE_TEXT, "The session's id.", None)
_BY_ID = Param("session_id", or_null(any_text), _MAYBE_TEXT, "The session's id, instead of a token.", None, True)
_ALL = Param("all", boolean, {"type": "boolean"}, "Sessions of all keys; takes a key with `admin`.", False, True)


def session_methods(settings: Settings) -> tuple[RpcMethod, ...]:
    """The table of the session endpoints."""
    most = settings.max_expires_in
    return (*_lives(most), *_tokens(most), *_looks())


def _seconds(name: str, most: int, about: str, by_name: bool = False) -> Param:
    schema: JsonObject = {"type": ["integer", "null"], "minimum": 1, "maximum": most}
    return Param(name, or_null(whole(1, most)), schema, about, None, by_name)


def _lives(most: int) -> tuple[RpcMethod, ...]:
    """From the opening of a session to its end, and back."""
    name: JsonObject = {"type": ["string", "null"], "minLength": 1}
    opening = (
        _seconds("expires_in", most, "Seconds; null is the server's default."),
        _seconds("idle_timeout", most, "Seconds without use after which it ends; null is never.", True),
        Param("name", or_null(text), name, "A name: an open session of that name is answered, if any.", None, True),
        Param("labels", or_null(string_map), _LABELS, "Labels for lists.", None, True),
        Param(
            "scopes", or_null(text_list), _SCOPES, "What the token may do; null is all that may be given.", None, True
        ),
    )
    return (
        RpcMethod(
            "session.open_session",
            open_session,
            "Open a session: a directory of its own, and the token to it.",
            Signature(opening),
            OPENED,
            needs="session.open",
            errors=(Overloaded,),
            key_only=True,
        ),
        RpcMethod(
            "session.close_session",
            close_session,
            "End the token's session. Its directory is out of reach when the answer arrives.",
            Signature((Param("token", any_text, _TOKEN, "A token of the session to end.", None), _BY_ID, _ALL)),
            {"const": True},
        ),
        RpcMethod(
            "session.keep_alive",
            keep_alive,
            "Start the idle clock of a session anew.",
            Signature((_A_TOKEN, _BY_ID)),
            CLOCKS,
            errors=(NotFound,),
        ),
        RpcMethod(
            "session.extend_session",
            extend_session,
            "Give a session a longer life, from now on.",
            Signature((_seconds("expires_in", most, "Seconds; null is the server's default."), _A_TOKEN, _BY_ID, _ALL)),
            CLOCKS,
            needs=MANAGE,
            errors=(NotFound, QuotaExceeded),
            admin=True,
        ),
        RpcMethod(
            "session.restore_session",
            restore_session,
            "Bring an ended session back while its files are kept, with a fresh token.",
            Signature((Param("session_id", text, {"type": "string"}, "The session's id."),)),
            OPENED,
            needs=MANAGE,
            errors=(NotFound, Conflict, Overloaded),
            key_only=True,
        ),
    )


def _tokens(most: int) -> tuple[RpcMethod, ...]:
    return (
        RpcMethod(
            "session.verify_session_token",
            verify_session_token,
            "Whether a token opens a session of the caller's now.",
            Signature((Param("token", any_text, _TOKEN, "The token to look at."),)),
            {"type": "object", "properties": {"active": {"type": "boolean"}}, "required": ["active"]},
        ),
        RpcMethod(
            "session.issue_token",
            issue_token,
            "A further token to a session, for less or for a shorter time. It dies with the token that asked for it.",
            Signature(
                (
                    Param(
                        "scopes", or_null(text_list), _SCOPES, "What it may do; null is all that may be given.", None
                    ),
                    _seconds("expires_in", most, "Seconds; null is as long as the session."),
                    _AN_ID,
                )
            ),
            ISSUED,
            needs=MANAGE,
            errors=(NotFound,),
        ),
        RpcMethod(
            "session.revoke_token",
            revoke_token,
            "Take a token back, with all that were issued from it. Its session lives on.",
            Signature((Param("token", any_text, _TOKEN, "The token."),)),
            {"const": True},
            needs=MANAGE,
            errors=(NotFound,),
        ),
    )


def _looks() -> tuple[RpcMethod, ...]:
    state: JsonObject = {"enum": [*_STATES, None]}
    listing = (
        Param("state", or_null(choice(*_STATES)), state, "Those in that state.", None),
        Param("labels", or_null(string_map), _LABELS, "Those with these labels, among others.", None),
        Param("cursor", or_null(text), _MAYBE_TEXT, "The `cursor` of the page before.", None),
        Param("limit", whole(1, MOST), {"type": "integer", "minimum": 1, "maximum": MOST}, "Sessions of a page.", 100),
        _ALL,
    )
    return (
        RpcMethod(
            "session.get_session",
            get_session,
            "How a session stands; the caller's own where none is named.",
            Signature((_A_TOKEN, _AN_ID, _ALL)),
            SESSION,
            errors=(NotFound,),
        ),
        RpcMethod(
            "session.list_sessions",
            list_sessions,
            "The key's sessions, ended ones too as long as they are remembered, the newest first.",
            Signature(listing),
            SESSIONS,
            needs=MANAGE,
            key_only=True,
            admin=True,
        ),
    )


async def open_session(
    exchange: Exchange,
    expires_in: int | None,
    idle_timeout: int | None,
    name: str | None,
    labels: Mapping[str, str] | None,
    scopes: list[str] | None,
) -> Json:
    """A fresh session, or the live one of that name, and a token to it."""
    principal = exchange.principal
    opened = await exchange.system.sessions.open(
        principal,
        expires_in=expires_in,
        idle_timeout=idle_timeout,
        name=name,
        labels=labels,
        scopes=narrowed(scopes, principal.grants, "scopes"),
        by=exchange.actor,
    )
    return opened_view(exchange.system, opened)


async def verify_session_token(exchange: Exchange, token: str) -> Json:
    """Whether the token is good now, for this caller."""
    return {"active": await exchange.system.sessions.tokens.verify(exchange.principal, token)}


async def close_session(exchange: Exchange, token: str | None, session_id: str | None, all: bool) -> Json:  # noqa: A002 - the contract's word
    """Always true: a caller learns nothing about tokens that are not its own."""
    if token is None and session_id is None:
        raise InvalidParams("token is required", errors=[{"loc": ["token"], "msg": "is required", "type": "missing"}])
    if token is None or all:
        with suppress(NotFound):
            await _end(exchange, await _managed(exchange, token, session_id, all))
        return True
    principal, tokens = exchange.principal, exchange.system.sessions.tokens
    found = await tokens.find(principal, token)
    if found is None or (principal.session is not None and found.session.id != principal.session):
        return True
    if MANAGE in principal.scopes:
        await _end(exchange, found.session)
    elif principal.session is None or found.id == principal.token:
        await tokens.revoke_known(found, exchange.actor)
    return True


async def keep_alive(exchange: Exchange, token: str | None, session_id: str | None) -> Json:
    """Both clocks, the idle one just started anew."""
    session = await _seen(exchange, token, session_id)
    return clocks(exchange.system, await exchange.system.sessions.keep_alive(session))


async def extend_session(
    exchange: Exchange,
    expires_in: int | None,
    token: str | None,
    session_id: str | None,
    all: bool,  # noqa: A002
) -> Json:
    """Both clocks, the fixed one just moved."""
    session = await _managed(exchange, token, session_id, all)
    return clocks(exchange.system, await exchange.system.sessions.extend(session, expires_in, exchange.actor))


async def restore_session(exchange: Exchange, session_id: str) -> Json:
    """The session, open again, and the token to it."""
    opened = await exchange.system.sessions.restore(exchange.principal, session_id, exchange.actor)
    return opened_view(exchange.system, opened)


async def issue_token(
    exchange: Exchange, scopes: list[str] | None, expires_in: int | None, session_id: str | None
) -> Json:
    """A further token."""
    principal, sessions = exchange.principal, exchange.system.sessions
    given = narrowed(scopes, principal.grants, "scopes")
    if session_id is None and principal.session is None:
        raise InvalidParams.field("session_id", "a caller with a key has to name the session", "missing")
    session = await sessions.get(principal, session_id=session_id)
    return issued_view(await sessions.tokens.issue(principal, session, given, expires_in, exchange.actor))


async def revoke_token(exchange: Exchange, token: str) -> Json:
    """Always true; a token that is none of the caller's is an error."""
    await exchange.system.sessions.tokens.revoke(exchange.principal, token, exchange.actor)
    return True


async def get_session(exchange: Exchange, token: str | None, session_id: str | None, all: bool) -> Json:  # noqa: A002
    """The record of a session, without its token."""
    session = await _seen(exchange, token, session_id, all)
    used = await exchange.system.workspaces.usage(session.id) if session.state == "open" else Usage()
    usage: JsonObject = {"bytes": used.bytes, "files": used.files}
    return {**session_view(exchange.system, session, of_all=all), "usage": usage}


async def list_sessions(
    exchange: Exchange,
    state: str | None,
    labels: Mapping[str, str] | None,
    cursor: str | None,
    limit: int,
    all: bool,  # noqa: A002
) -> Json:
    """A page of sessions, and where the next one begins."""
    principal = exchange.principal
    _require_manage(principal, all)
    after = None if cursor is None else Place.of(cursor)
    wanted = Wanted(None if all else principal.key, cast("None", state), labels or {}, after, limit)
    page = await exchange.system.sessions.page(wanted)
    shown: list[Json] = [session_view(exchange.system, each, of_all=all) for each in page.sessions]
    return {"sessions": shown, "cursor": None if page.next is None else page.next.cursor}


# ------------------------------------------------------------------------------------------------- whose sessions


async def _seen(exchange: Exchange, token: str | None, session_id: str | None, of_all: bool = False) -> Session:
    """A session to look at: one's own with whatever credentials, another of the key with `session.manage`."""
    if of_all or exchange.principal.session is None:
        _require_manage(exchange.principal, of_all)
    return await exchange.system.sessions.get(exchange.principal, token=token, session_id=session_id, of_all=of_all)


async def _managed(exchange: Exchange, token: str | None, session_id: str | None, of_all: bool) -> Session:
    """A session to change."""
    _require_manage(exchange.principal, of_all)
    return await exchange.system.sessions.get(exchange.principal, token=token, session_id=session_id, of_all=of_all)


def _require_manage(principal: Principal, of_all: bool) -> None:
    if not of_all:
        require(principal, MANAGE)
    elif principal.via != "key" or "admin" not in principal.scopes:
        raise Forbidden("sessions of all keys take a key with the scope admin", scope="admin")


async def _end(exchange: Exchange, session: Session) -> None:
    over = exchange.system.sessions.over(session)
    reason = over if over in ("expired", "idle") else "closed"
    with suppress(SessionEnded):
        await exchange.system.reaper.end(session.id, cast("Reason", reason), exchange.actor)
