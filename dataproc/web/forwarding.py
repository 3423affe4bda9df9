"""Requests for a session that another server of the cluster has: handed to it, and its reply handed back.

Who asks is checked here, and checked again there, from the same headers. What headers do not say, the address that a
request came from, is vouched for by the secret of the cluster.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import structlog
from starlette.types import Message, Receive, Scope, Send

from dataproc import jsonrpc
from dataproc.errors import DataprocError, Interrupted, StorageUnavailable
from dataproc.types import SESSION_ID, Elsewhere
from dataproc.web.asgi import RawHeaders, refusal_headers, request_id_of, respond, status_of
from dataproc.web.auth import authenticate, peer_of

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from dataproc.composition import System

FROM_NODE: Final = b"dataproc-node"  # header: this was forwarded; its value is the secret of the cluster
PEER: Final = b"dataproc-peer"  # header: the address at the other end of the first server's socket
CONNECT = 2.0  # seconds
WATCHED = 1.0  # seconds between two looks whether the other server still has the session
_HOPS = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
FACADE = "/cra/"
_ROOMS = ("/api/", FACADE)

log = structlog.get_logger(__name__)


class Forwarding:
    """Stands before the routes of a server whose sessions may be on other servers."""

    def __init__(self, system: System) -> None:
        self.system = system
        secret = system.settings.cluster_secret
        self._secret = secret.get_secret_value().encode() if secret else b""
        self._client: ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Whether the request was answered; if not, it is to be answered here."""
        if not scope["path"].startswith(_ROOMS) or self._arrived(scope):
            return False
        try:
            session = await self._session_of(scope)
            if session is None:
                return False
            there = await self.system.workspaces.elsewhere(session)
        except DataprocError:
            return False  # the route tells it in its own way
        if there is None or there.url is None:
            return False
        return await self._forward(session, there, scope, receive, send)

    async def _session_of(self, scope: Scope) -> str | None:
        """The session that the request is for. The facade's is named by a parameter, and its owner checked there."""
        if scope["path"].startswith(FACADE):
            named = parse_qs(scope["query_string"].decode("latin-1")).get("session", [""])[-1]
            return named if SESSION_ID.fullmatch(named) else None
        return (await authenticate(scope, self.system)).session

    async def close(self) -> None:
        """Drop the connections."""
        if self._client is not None:
            await self._client.close()

    def _arrived(self, scope: Scope) -> bool:
        """Whether another server sent it. What it vouches for is believed if it has the secret."""
        said = dict(scope["headers"])
        secret, peer = said.get(FROM_NODE), said.get(PEER)
        if secret is None:
            return False
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in (FROM_NODE, PEER)]
        if peer is not None and self._secret and hmac.compare_digest(secret, self._secret):
            scope["client"] = (peer.decode("latin-1"), 0)
        return True

    async def _forward(self, session: str, there: Elsewhere, scope: Scope, receive: Receive, send: Send) -> bool:
        from aiohttp import ClientConnectorError, ClientError, ConnectionTimeoutError

        passing = _Passing(receive, send)
        try:
            await self._while_it_holds(session, there, asyncio.create_task(self._pass_on(there, scope, passing)))
        except (ClientConnectorError, ConnectionTimeoutError) as error:
            log.warning("node_unreachable", holder=there.node, reason=str(error))
            return False  # nothing was sent: it is dead, perhaps, and we may take over when its lease has run out
        except (ClientError, OSError, _LeftError) as error:
            log.warning("node_lost", holder=there.node, reason=f"{type(error).__name__}: {error}")
            if passing.answered:
                raise  # the connection breaks: the only way left to tell
            if not passing.taken and (isinstance(error, _LeftError) or scope["method"] in ("GET", "HEAD")):
                return False  # it did nothing, nor will it: its lease has run out
            told = "the server that has the session was lost while it worked on this; what it had acknowledged is kept"
            await _refuse(scope, send, Interrupted(told))
        return True

    async def _while_it_holds(self, session: str, there: Elsewhere, work: asyncio.Task[None]) -> None:
        """Wait for the other server's reply, as long as it has the session: one that is frozen never answers."""
        try:
            while not (await asyncio.wait([work], timeout=WATCHED))[0]:
                with suppress(StorageUnavailable):
                    holder = await self.system.workspaces.elsewhere(session)
                    if holder is None or holder.node != there.node:
                        raise _LeftError("its lease has run out")
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
        work.result()

    async def _pass_on(self, there: Elsewhere, scope: Scope, passing: _Passing) -> None:
        from yarl import URL

        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        target = URL((there.url or "").rstrip("/") + (scope["raw_path"] + query).decode("latin-1"), encoded=True)
        body = passing.body() if _has_body(scope) else None
        # the body is given away only when the other server asks for it, so that one that is frozen has not got it
        options = {"headers": self._headers(scope), "data": body, "allow_redirects": False, "expect100": bool(body)}
        async with self._connected().request(scope["method"], target, **options) as reply:
            gone = asyncio.create_task(passing.disconnected()) if body is None else None
            try:
                await _hand_back(reply, passing, gone)
            finally:
                if gone is not None:
                    gone.cancel()

    def _connected(self) -> Any:
        if self._client is None:
            from aiohttp import ClientSession, ClientTimeout, TCPConnector

            self._client = ClientSession(
                connector=TCPConnector(limit=0),
                timeout=ClientTimeout(total=None, sock_connect=CONNECT),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._client

    def _headers(self, scope: Scope) -> list[tuple[str, str]]:
        kept = [(name, value) for name, value in scope["headers"] if name not in _HOPS]
        kept += [(FROM_NODE, self._secret or b"-"), (PEER, (peer_of(scope) or "").encode("latin-1"))]
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in kept]


class _LeftError(Exception):
    """The other server does not have the session any more."""


class _Passing:
    """A request while it is passed on. taken: some of its body was. answered: some of the reply was handed back."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.taken = self.answered = False
        self._receive, self._send = receive, send

    async def send(self, message: Message) -> None:
        """Hand back."""
        self.answered = True
        await self._send(message)

    async def body(self) -> AsyncIterator[bytes]:
        """Take the body, in pieces."""
        more = True
        while more:
            self.taken = True
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client went away")
            if chunk := message.get("body", b""):
                yield chunk
            more = message.get("more_body", False)

    async def disconnected(self) -> None:
        """Wait until the client goes away, after a request without a body."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _hand_back(reply: Any, passing: _Passing, gone: asyncio.Task[None] | None) -> None:
    headers = [(name.lower(), value) for name, value in reply.raw_headers if name.lower() not in _HOPS]
    await passing.send({"type": "http.response.start", "status": reply.status, "headers": headers})
    async for chunk in reply.content.iter_any():
        if gone is not None and gone.done():
            return  # leaving closes the connection, which tells the other server
        await passing.send({"type": "http.response.body", "body": chunk, "more_body": True})
    await passing.send({"type": "http.response.body", "body": b""})


def _has_body(scope: Scope) -> bool:
    said = dict(scope["headers"])
    return b"transfer-encoding" in said or said.get(b"content-length", b"0") != b"0"


async def _refuse(scope: Scope, send: Send, error: Interrupted | StorageUnavailable) -> None:
    request_id = request_id_of(dict(scope["headers"]).get(b"x-request-id"))
    headers: RawHeaders = [(b"x-request-id", request_id.encode()), (b"content-type", b"application/json")]
    headers.extend(refusal_headers(error))
    if scope["path"].endswith("/jsonrpc"):
        await respond(send, 200, headers, jsonrpc.refusal(None, error, request_id=request_id))
    else:
        told = jsonrpc.dumps({"error": jsonrpc.error_object(error, request_id=request_id)})
        await respond(send, status_of(error), headers, told)
