"""One HTTP request to an RPC endpoint while it is answered: who asks, and in which session its calls run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.types import Receive, Scope

from dataproc.types import Actor, Principal, wire_id
from dataproc.under_way import nobody_waits
from dataproc.web.asgi import RawHeaders
from dataproc.web.auth import actor

if TYPE_CHECKING:
    from dataproc.composition import System
    from dataproc.sessions import Opened

T = TypeVar("T")

# Of a notification: tells its endpoint that the run has begun. Each task's own: calls of a batch share an exchange.
BEGUN: ContextVar[Callable[[], None]] = ContextVar("begun", default=nobody_waits)


class Exchange:
    """Shared by all calls of a batch.

    With a key alone, the first call that asks for a session opens a fresh one, the others get the same, and `finish`
    ends it. `idempotency_key` is the header's text, None without.
    """

    __slots__ = (
        "_closes",
        "_keeps",
        "_opening",
        "_receive",
        "_scope",
        "idempotency_key",
        "principal",
        "request_id",
        "system",
    )

    def __init__(
        self,
        system: System,
        principal: Principal,
        request_id: str,
        idempotency_key: str | None,
        scope: Scope,
        receive: Receive,
    ) -> None:
        self.system = system
        self.principal = principal
        self.request_id = request_id
        self.idempotency_key = idempotency_key
        self._scope, self._receive = scope, receive
        self._opening: asyncio.Task[Opened] | None = None
        self._closes = False
        self._keeps = 0  # calls that asked for it

    @property
    def actor(self) -> Actor:
        """The caller, for tombstones and the audit log."""
        return actor(self._scope, self.principal, self.system.settings, self.request_id)

    async def session(self) -> str:
        """Id of the session that a call runs in."""
        if self.principal.session is not None:
            return self.principal.session
        if self._opening is None:
            self._opening = asyncio.ensure_future(self.system.sessions.open(self.principal, one_shot=True))
        return (await asyncio.shield(self._opening)).session.id

    def close(self) -> None:
        """Have the session ended after the calls, though the caller has a token to it."""
        self._closes = True

    async def keep(self) -> None:
        """Have the session of a call without a token outlive it; in a batch, one call that asks is enough."""
        if self._opening is None:
            return
        self._keeps += 1
        if self._keeps == 1:
            await self.system.sessions.keep(await self.session())

    async def unless_gone(self, work: Coroutine[Any, Any, T], gone: Callable[[], object]) -> T:
        """What `work` gives; `gone` is called when the caller hangs up meanwhile."""
        working, hearing = asyncio.ensure_future(work), asyncio.ensure_future(self._hung_up())
        try:
            await asyncio.wait([working, hearing], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                gone()
            return await working
        finally:
            hearing.cancel()

    async def _hung_up(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def let_go(self) -> None:
        """Take a `keep` back: its call was refused."""
        self._keeps -= 1 if self._opening is not None else 0

    @property
    def ends(self) -> str | None:
        """Id of the session that `finish` will end."""
        opened = self._opened
        if opened is not None:
            return None if self._keeps else opened.session.id
        return self.principal.session if self._closes else None

    async def refuse_more(self) -> None:
        """Let the session that `finish` will end take no more calls."""
        if (session := self.ends) is not None:
            await self.system.sessions.begin_end(session, "closed", self.actor)

    async def finish(self) -> None:
        """End the session if that is due. Called once, when every call of the request has ended."""
        if (session := self.ends) is not None:
            await self.system.reaper.end(session, "closed", self.actor)

    def reply_headers(self) -> RawHeaders:
        """What the reply says beside its type and length."""
        headers = [(b"x-request-id", self.request_id.encode())]
        opened = self._opened
        session = self.principal.session if opened is None else opened.session.id
        if session is not None:
            headers.append((b"xdata-session-id", wire_id(session).encode()))
        if opened is not None and self._keeps:
            headers.append((b"xdata-session-token", opened.access_token.encode()))
        return headers

    @property
    def _opened(self) -> Opened | None:
        opening = self._opening
        if opening is None or not opening.done() or opening.cancelled() or opening.exception() is not None:
            return None
        return opening.result()
