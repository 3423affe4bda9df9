"""Who is calling: from the headers and the socket of a request to a Principal, and forward-auth for proxies."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, cast

import structlog
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from dataproc import headers as names
from dataproc.access import Credentials, scopes
from dataproc.errors import DataprocError
from dataproc.types import Principal, wire_id
from dataproc.web.asgi import CHALLENGE, REQUEST_ID_OF_REPLY, RawHeaders, refusal_headers, respond

if TYPE_CHECKING:
    from dataproc.composition import System

log = structlog.get_logger(__name__)

SESSION_OF_REPLY = "dataproc.session"  # in the scope: what the reply's `Xdata-Session-Id` will be


async def authenticate(scope: Scope, system: System) -> Principal:
    """Who sent this request; a gateway's session is opened at its first use. Raises Unauthorized, SessionEnded."""
    principal = await system.authenticator.authenticate(Credentials.from_headers(scope["headers"], peer_of(scope)))
    if principal.via == "gateway":
        await system.sessions.adopt(principal)
    return principal


async def principal_of(request: Request) -> Principal:
    """The same as a dependency of ordinary routes: `Annotated[Principal, Depends(principal_of)]`."""
    principal = await authenticate(request.scope, cast("System", request.app.state.system))
    if principal.session is not None:
        request.scope[SESSION_OF_REPLY] = wire_id(principal.session)
    return principal


def peer_of(scope: Scope) -> str | None:
    """The address at the other end of the socket, or `unix:<uid>` (see `server`); nothing that a header says."""
    client = scope.get("client")
    return client[0] if client else None


class ClientAddress:
    """Where a request began: the socket's peer, or what a proxy among the `allowed` networks says of it."""

    def __init__(self, allowed: str) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [
            ip_network(each.strip(), strict=False) for each in allowed.split(",") if each.strip()
        ]

    def of(self, scope: Scope) -> str:
        """The nearest address that no trusted proxy speaks for; empty where it is not known."""
        address = peer_of(scope) or ""
        if not self._networks or not self._trusted(address):
            return address
        said = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
        for hop in reversed([each.strip() for each in said.split(",") if each.strip()]):
            address = hop
            if not self._trusted(hop):
                break
        return address

    def _trusted(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


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
            principal = await self.system.authenticator.authenticate(replace(credentials, session_id=None))
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


def _identity(principal: Principal) -> RawHeaders:
    told = [(names.SCOPES, scopes.join(principal.scopes)), (names.KEY, principal.key)]
    if principal.session is not None:
        told.append((names.SESSION_ID, wire_id(principal.session)))
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in told]
