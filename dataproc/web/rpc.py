"""The JSON-RPC endpoints: one request read, authenticated, parsed, run and answered.

An endpoint is a bare ASGI application, reached before FastAPI's own machinery, because a framework that validates
the body first answers 422 where the protocol has -32700 and -32600, and because a warm call is as fast as this file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import TYPE_CHECKING

import structlog
from starlette.types import Receive, Scope, Send

from dataproc import jsonrpc
from dataproc.errors import DataprocError, InternalError, InvalidRequest, ParseError, UnknownRpcMethod
from dataproc.jsonrpc import Batch, Rejected, Request
from dataproc.telemetry import METRICS
from dataproc.web import openrpc
from dataproc.web.asgi import (
    REQUEST_ID_OF_REPLY,
    DisconnectedError,
    MethodNotAllowed,
    RawHeaders,
    cut_off,
    read_body,
    refusal_headers,
    request_id_of,
    require_json,
    respond,
    status_of,
)
from dataproc.web.auth import SESSION_OF_REPLY, authenticate
from dataproc.web.background import Background
from dataproc.web.exchange import BEGUN, Exchange
from dataproc.web.methods import RpcMethod

if TYPE_CHECKING:
    from dataproc.composition import System

log = structlog.get_logger(__name__)

PARSED_IN_A_THREAD = 256 * 1024  # bytes; above, parsing would hold up everybody else for milliseconds


class RpcEndpoint:
    """One endpoint and the table of its methods, as an ASGI application."""

    def __init__(self, system: System, path: str, methods: Iterable[RpcMethod], background: Background) -> None:
        self.system = system
        table = tuple(methods)
        self.methods = {method.name: method for method in (*table, openrpc.discovery(path, table))}
        self.background = background
        self._width = system.settings.concurrent_runs  # calls of a batch at once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        request_id = scope[REQUEST_ID_OF_REPLY] = request_id_of(headers.get(b"x-request-id"))
        try:
            exchange, body = await self._admit(scope, receive, headers, request_id)
            answer = await self._answer(exchange, body)
        except DisconnectedError:
            return
        except asyncio.CancelledError:
            if not self.system.executor.stopping:
                raise
            await _refuse(scope, send, cut_off(), request_id)
            return
        except Exception as error:
            await _refuse(scope, send, _told(error, request_id), request_id)
            return
        reply = exchange.reply_headers()
        if answer is None:
            await respond(send, 204, reply)
        else:
            reply.append((b"content-type", b"application/json"))
            await respond(send, 200, reply, answer)

    async def _admit(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], request_id: str
    ) -> tuple[Exchange, bytes]:
        """The request and its body. What this raises refuses the request as a whole.

        Authentication comes before the body is read: strangers cost nothing and learn nothing.
        """
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"JSON-RPC takes POST, not {scope['method']}")
            require_json(headers.get(b"content-type"))
        except InvalidRequest:
            with suppress(DataprocError):
                await authenticate(scope, self.system)  # so that the reply can name the session
            raise
        principal = await authenticate(scope, self.system)
        settings = self.system.settings
        body = await read_body(receive, headers.get(b"content-length"), settings.request_limit)
        key = headers.get(b"idempotency-key")
        named = None if key is None else key.decode("latin-1")
        return Exchange(self.system, principal, request_id, named, scope, receive), body

    async def _answer(self, exchange: Exchange, body: bytes) -> bytes | None:
        """The body of the reply; None where nothing is to be said."""
        try:
            asked = await self._parse(body)
            if isinstance(asked, Batch) and len(asked.items) > 1 and exchange.idempotency_key is not None:
                raise InvalidRequest(
                    "`Idempotency-Key` names one call; send it with a batch of one, or without a batch"
                )
        except (ParseError, InvalidRequest) as error:
            METRICS.rpc("unknown", error.name, 0)
            return jsonrpc.refusal(None, error, request_id=exchange.request_id)
        if isinstance(asked, Batch):
            self.system.authenticator.rates.owe(exchange.principal.key, len(asked.items) - 1)
            return await self._answer_batch(exchange, asked.items)
        if isinstance(asked, Request) and asked.notification:
            return await self._answer_batch(exchange, [asked])
        answer = await self._call(exchange, asked)
        await self._finish(exchange)
        return answer

    async def _parse(self, body: bytes) -> Request | Rejected | Batch:
        settings = self.system.settings
        if len(body) <= PARSED_IN_A_THREAD:
            return jsonrpc.parse(body, max_depth=settings.json_depth, max_batch=settings.batch_limit)
        return await asyncio.to_thread(
            jsonrpc.parse, body, max_depth=settings.json_depth, max_batch=settings.batch_limit
        )

    async def _answer_batch(self, exchange: Exchange, items: Sequence[Request | Rejected]) -> bytes | None:
        silent = [item for item in items if isinstance(item, Request) and item.notification]
        spoken = [item for item in items if isinstance(item, Rejected) or not item.notification]
        if not silent:
            answers = await self._run_all(exchange, spoken)
            await self._finish(exchange)
            return jsonrpc.join(answers)
        begun = [asyncio.Event() for _ in silent[: self._width]]
        answered = asyncio.Event()
        self.background.spawn(self._run_on(exchange, silent, begun, answered))
        try:
            answers = await self._run_all(exchange, spoken)
            for each in begun:
                await each.wait()
        finally:
            answered.set()
        return jsonrpc.join(answers) if answers else None

    async def _run_on(
        self, exchange: Exchange, silent: Sequence[Request], begun: Sequence[asyncio.Event], answered: asyncio.Event
    ) -> None:
        """Run notifications, however long they take (how many do is bounded by the executor's queue).

        begun: of each of those that run at once, set when its run is under way, or when it has ended without. From then
        on their session, and a stop of the server, wait for them.
        """
        todo = iter(silent)

        async def work(first: asyncio.Event) -> None:
            BEGUN.set(first.set)
            for item in todo:
                await self._call(exchange, item)
                first.set()

        try:
            await asyncio.gather(*map(work, begun))
        finally:
            for each in begun:
                each.set()  # also when the server gives them up
        await answered.wait()
        await self._end(exchange)

    async def _finish(self, exchange: Exchange) -> None:
        """End the session where the request says so.

        The reply waits for the whole end of a session that nobody else can know. Of another it waits until no call
        gets in any more: runs of other requests may be under way in it.
        """
        if exchange.ends is None:
            return
        if exchange.principal.session is None:
            await self._end(exchange)
        else:
            with _logged(exchange):
                await exchange.refuse_more()
            self.background.spawn(self._end(exchange))

    async def _end(self, exchange: Exchange) -> None:
        with _logged(exchange):
            await exchange.finish()

    async def _run_all(self, exchange: Exchange, items: Sequence[Request | Rejected]) -> list[bytes]:
        """The answers, in the order of the calls. As many at once as the server has runs at once."""
        answers = [b""] * len(items)
        todo = iter(enumerate(items))

        async def work() -> None:
            for place, item in todo:
                answers[place] = await self._call(exchange, item)

        await asyncio.gather(*(work() for _ in range(min(len(items), self._width))))
        return answers

    async def _call(self, exchange: Exchange, item: Request | Rejected) -> bytes:
        """The response object of one call: every error of a call becomes an answer here, and nowhere else."""
        started = perf_counter()
        known, outcome = "unknown", "ok"
        try:
            if isinstance(item, Rejected):
                raise item.error
            method = self.methods.get(item.method)
            if method is None:
                raise UnknownRpcMethod(
                    f"this endpoint has no method {item.method[:100]!r}; rpc.discover lists what it has"
                )
            known = method.name
            answer = jsonrpc.answer(item.id, await method.call(exchange, item.params))
        except Exception as error:
            told = _told(error, exchange.request_id, known)
            outcome = told.name
            answer = _refusal(item, told, exchange.request_id)
        METRICS.rpc(known, outcome, perf_counter() - started)
        return answer


@contextmanager
def _logged(exchange: Exchange) -> Iterator[None]:
    """Around the end of a session: the caller has its answer, so what fails is told to the log alone."""
    try:
        yield
    except Exception:
        log.exception("session_end_failed", request_id=exchange.request_id, session_id=exchange.ends)


def _refusal(item: Request | Rejected, error: DataprocError, request_id: str) -> bytes:
    try:
        return jsonrpc.refusal(item.id, error, request_id=request_id)
    except (TypeError, ValueError, RecursionError) as unsayable:  # what a worker said stands in some errors
        return jsonrpc.refusal(item.id, _told(unsayable, request_id), request_id=request_id)


def _told(error: Exception, request_id: str, method: str | None = None) -> DataprocError:
    """What the caller is told of `error`; what is no error of the contract goes into the log alone."""
    if isinstance(error, DataprocError):
        return error
    log.error("request_failed", request_id=request_id, rpc_method=method, exc_info=error)
    return InternalError("the server failed; its log has the cause under the request id")


async def _refuse(scope: Scope, send: Send, error: DataprocError, request_id: str) -> None:
    headers: RawHeaders = [(b"x-request-id", request_id.encode()), (b"content-type", b"application/json")]
    if session := scope.get(SESSION_OF_REPLY):
        headers.append((b"xdata-session-id", session.encode()))
    headers.extend(refusal_headers(error))
    await respond(send, status_of(error), headers, jsonrpc.refusal(None, error, request_id=request_id))
