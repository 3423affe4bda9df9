"""Who is calling: from the headers and the socket of a request to a Principal, and forward-auth for proxies."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from dataproc import headers as names
from dataproc.access import Credentials, scopes
from dataproc.errors import DataprocError, SessionEnded, Unauthorized
from dataproc.settings import Settings, words_of
from dataproc.telemetry import METRICS
from dataproc.types import Actor, Principal, wire_id
from dataproc.web.asgi import CHALLENGE, REQUEST_ID_OF_REPLY, RawHeaders, refusal_headers, respond

if TYPE_CHECKING:
    from dataproc.composition import System

Network = IPv4Network | IPv6Network

log = structlog.get_logger(__name__)

SESSION_OF_REPLY = "dataproc.session"  # in the scope: what the reply's `Xdata-Session-Id` will be


async def authenticate(scope: Scope, system: System) -> Principal:
    """Who sent this request; a gateway's session is opened at its first use.

    Raises Unauthorized, SessionEnded, Overloaded where the key makes too many calls.
    """
    try:
        principal = await checked(Credentials.from_headers(scope["headers"], peer_of(scope)), scope, system)
        if principal.session is not None:
            scope[SESSION_OF_REPLY] = wire_id(principal.session)
        system.authenticator.rates.charge(principal.key)
        if principal.via == "gateway":
            await system.sessions.adopt(principal)
    except SessionEnded as error:
        if error.session is not None:
            scope[SESSION_OF_REPLY] = wire_id(error.session)
        raise
    return principal


async def checked(credentials: Credentials, scope: Scope, system: System) -> Principal:
    """Whose credentials these are; wrong ones are told of, and slowed down by their address. Raises Unauthorized."""
    try:
        principal = await system.authenticator.authenticate(credentials)
    except Unauthorized as error:
        await refused(error, scope, system, guess=credentials.guess)
        raise
    tell_use(principal, scope, system)
    return principal


def tell_use(principal: Principal, scope: Scope, system: System) -> None:
    """Write into the audit log that credentials were used, where that was not told lately."""
    settings, seen = system.settings, system.authenticator.seen
    # the address that a proxy speaks for takes longer to find, and most servers have none
    client = client_address(scope, networks(settings.forwarded_allow_ips)) if settings.forwarded_allow_ips else None
    if seen.fresh(principal.token or principal.key, client or peer_of(scope) or ""):
        by = actor(scope, principal, settings)
        system.database.audit.tell("credentials_used", by, key=principal.key, session=principal.session)


async def refused(error: Unauthorized, scope: Scope, system: System, *, guess: bool) -> None:
    """Before somebody is told that credentials are wrong. guess: they may have been tried out."""
    client = client_address(scope, networks(system.settings.forwarded_allow_ips))
    request_id = scope.get(REQUEST_ID_OF_REPLY)
    log.warning("credentials_refused", request_id=request_id, client=client, path=scope["path"], why=error.message)
    if guess and "reason" not in error.data and (delay := system.authenticator.failures.note(client)):
        await _slow_down(error, delay, Actor("unknown", client, request_id), system)


async def _slow_down(error: Unauthorized, delay: float, by: Actor, system: System) -> None:
    """Hold the refusal back. Only wrong credentials come here, so whoever has good ones never waits."""
    METRICS.rejected("failed_credentials")
    if system.authenticator.seen.fresh("wrong credentials", by.client or ""):
        system.database.audit.tell("credentials_refused", by)
    error.data["retry_after"] = max(1, round(delay))
    await system.authenticator.failures.hold(delay)


def actor(scope: Scope, principal: Principal, settings: Settings, request_id: str | None = None) -> Actor:
    """The caller, for tombstones and the audit log."""
    client = client_address(scope, networks(settings.forwarded_allow_ips))
    return Actor(principal.name, client or None, request_id or scope.get(REQUEST_ID_OF_REPLY))


async def principal_of(request: Request) -> Principal:
    """The same as a dependency of ordinary routes: `Annotated[Principal, Depends(principal_of)]`."""
    return await authenticate(request.scope, cast("System", request.app.state.system))


def peer_of(scope: Scope) -> str | None:
    """The address at the other end of the socket, or `unix:<uid>` (see `server`); nothing that a header says."""
    client = scope.get("client")
    return client[0] if client else None


@lru_cache(maxsize=16)
def networks(listed: str) -> tuple[Network, ...]:
    """The networks of a comma-separated list. Raises ValueError for one that is none."""
    return tuple(ip_network(each, strict=False) for each in words_of(listed))


def client_address(scope: Scope, proxies: tuple[Network, ...]) -> str:
    """Where a request began: the socket's peer, or the last address for which no trusted proxy speaks.

    Empty where the peer is not known.
    """
    address = peer_of(scope) or ""
    said = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    hops = [each.strip() for each in said.split(",") if each.strip()]
    while hops and _within(address, proxies):
        address = hops.pop()
    return address


def by_proxy(scope: Scope, settings: Settings) -> bool:
    """Whether a trusted proxy passed this request on for somebody."""
    return any(name == b"x-forwarded-for" for name, _ in scope["headers"]) and _within(
        peer_of(scope) or "", networks(settings.forwarded_allow_ips)
    )


def _within(address: str, proxies: tuple[Network, ...]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in proxies)


class Resolve:
    """`/auth/resolve`: 200 and who it is, or 401, for the sub-request of a proxy; never another status.

    The gateway's own headers count for nothing here: a proxy passes on what its client sent, and its address may be
    among the trusted peers, so a client could name any session.
    """

    def __init__(self, system: System) -> None:
        self.system = system

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply: RawHeaders = []
        try:
            credentials = Credentials.from_headers(scope["headers"], None)
            principal = await checked(replace(credentials, session_id=None), scope, self.system)
        except DataprocError as error:
            reply.extend(refusal_headers(error))
        except Exception as error:
            log.error("request_failed", request_id=scope.get(REQUEST_ID_OF_REPLY), exc_info=error)
        else:
            await respond(send, 200, [*reply, *_identity(principal)])
            return
        if not any(name == b"www-authenticate" for name, _ in reply):
            reply.append((b"www-authenticate", CHALLENGE))
        await respond(send, 401, reply)


def _described(operation: str, *params: dict[str, Any]) -> dict[str, Any]:
    headers = {name: {"schema": {"type": "string"}} for name in (names.SCOPES, names.KEY, names.SESSION_ID)}
    return {
        "tags": ["auth"],
        "summary": "Who sends these credentials, for a proxy; by any method",
        "operationId": operation,
        "parameters": list(params),
        "responses": {
            "200": {"description": "Somebody; `Xdata-Session-Id` only with a token", "headers": headers},
            "401": {"description": "Nobody; with `Retry-After` where trying again later helps"},
        },
    }


# For the OpenAPI document, which cannot say that a path takes any method.
RESOLVE_PATHS: Final = {
    "/auth/resolve": {"get": _described("resolve")},
    "/auth/resolve/{anything}": {
        "get": _described(
            "resolve_below", {"name": "anything", "in": "path", "required": True, "schema": {"type": "string"}}
        )
    },
}


def _identity(principal: Principal) -> RawHeaders:
    told = [(names.SCOPES, scopes.join(principal.scopes)), (names.KEY, principal.key)]
    if principal.session is not None:
        told.append((names.SESSION_ID, wire_id(principal.session)))
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in told]
