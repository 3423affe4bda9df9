"""`Facade`: what the routes stand on: user tokens, their sessions, and the views that there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from starlette.types import Scope

from dataproc.access import Credentials, may_exec, require, require_exec
from dataproc.access.user_tokens import Holder, UserTokens
from dataproc.errors import DataprocError, NotFound, Unauthorized
from dataproc.registry import MethodInfo, ModuleEntry
from dataproc.types import SESSION_ID, Actor, Principal
from dataproc.web.auth import SESSION_OF_REPLY, actor, checked, refused, tell_use
from dataproc.web.background import Background
from dataproc.web.cra.rows import KeptRows

if TYPE_CHECKING:
    from dataproc.composition import System

log = structlog.get_logger(__name__)


class Facade:
    """The system as the facade's clients see it."""

    def __init__(self, system: System, background: Background) -> None:
        self.system = system
        self.tokens = UserTokens(system.database, system.settings)
        self.rows = KeptRows(system)
        self._background = background

    # -- user tokens ------------------------------------------------------------------------------------------------

    async def log_on(self, scope: Scope, username: str, password: str) -> str:
        """A user token for a key and its secret. Raises Unauthorized, Forbidden."""
        principal = await checked(Credentials(api_key=username, secret=password), scope, self.system)
        require(principal, "session.open")
        text = await self.tokens.issue(principal.key)
        by = actor(scope, principal, self.system.settings)
        self.system.database.audit.tell("user_token_issued", by, key=principal.key)
        return text

    async def holder(self, scope: Scope, text: str) -> Holder:
        """Who sent a user token. Raises Unauthorized, Overloaded where the key makes too many calls."""
        try:
            holder = await self.tokens.authenticate(text)
        except Unauthorized as error:
            await refused(error, scope, self.system, guess=True)
            raise
        self.system.authenticator.rates.charge(holder.key)
        tell_use(holder.principal(), scope, self.system)
        return holder

    async def log_off(self, scope: Scope, holder: Holder) -> None:
        """End the token, and all sessions of it."""
        await self.tokens.end(holder)
        self.system.database.audit.tell("user_token_ended", self._by(scope, holder), key=holder.key)
        await self.close_all(scope, holder)

    def _by(self, scope: Scope, holder: Holder) -> Actor:
        return actor(scope, holder.principal(), self.system.settings)

    # -- sessions ---------------------------------------------------------------------------------------------------

    async def find(self, holder: Holder, session_id: str) -> Principal:
        """The caller in a session of its own. Raises NotFound for one that is over, unknown, or another's."""
        if not SESSION_ID.fullmatch(session_id):
            raise NotFound("there is no such session of this user token")
        await self.tokens.require(holder, session_id)
        await self.system.sessions.live(session_id)
        return holder.principal(session_id)

    async def keep_alive(self, holder: Holder, session_id: str) -> None:
        """The session's clock starts anew, as the token's did. Raises NotFound."""
        await self.find(holder, session_id)
        self.system.sessions.touch(session_id)

    @asynccontextmanager
    async def session(
        self, scope: Scope, holder: Holder, session_id: str | None, close: bool | None
    ) -> AsyncIterator[Principal]:
        """The caller in the named session, or in a fresh one; what is due to close is closed at the end.

        A fresh one closes unless `close` is False, and also where the call fails: nobody is told its id. Raises
        NotFound, Overloaded.
        """
        sessions, by = self.system.sessions, self._by(scope, holder)
        fresh = session_id is None
        principal = await self._open(holder, close, by) if session_id is None else await self.find(holder, session_id)
        assert principal.session is not None
        done = False
        try:
            sessions.enter(principal.session)
            try:
                yield principal
            finally:
                sessions.leave(principal.session)
            done = True
        finally:
            if fresh and (close is not False or not done):
                await self.system.reaper.end(principal.session, "closed", by)
            elif close:
                await self.close(scope, holder, principal.session)
        scope[SESSION_OF_REPLY] = principal.session
        await self.tokens.wind(holder)

    async def _open(self, holder: Holder, close: bool | None, by: Actor) -> Principal:
        sessions, idle = self.system.sessions, int(self.tokens.timeout.total_seconds())
        opened = await sessions.open(holder.principal(), idle_timeout=idle, one_shot=close is not False, by=by)
        try:
            await self.tokens.take(holder, opened.session.id)
        except BaseException:
            await self.system.reaper.end(opened.session.id, "closed", by)
            raise
        return holder.principal(opened.session.id)

    async def close(self, scope: Scope, holder: Holder, session_id: str) -> None:
        """Let a session take no more calls, and see it to its end in the background: runs may be under way in it."""
        by = self._by(scope, holder)
        await self.system.sessions.begin_end(session_id, "closed", by)
        self._background.spawn(self._end(session_id, by))

    async def close_all(self, scope: Scope, holder: Holder) -> None:
        """Close every session of a token."""
        for session_id in await self.tokens.sessions(holder):
            await self.close(scope, holder, session_id)

    async def _end(self, session_id: str, by: Actor) -> None:
        try:
            await self.system.reaper.end(session_id, "closed", by)
        except DataprocError:
            log.exception("session_end_failed", session_id=session_id)

    # -- products and views -----------------------------------------------------------------------------------------

    async def products(self, holder: Holder) -> list[ModuleEntry]:
        """The modules of which the caller may see a view."""
        registry = self.system.registry
        ready = [row["name"] for row in await registry.list() if row["state"] == "ready"]
        entries = [await registry.resolve(name) for name in ready]
        return [entry for entry in entries if self.views(holder, entry)]

    def views(self, holder: Holder, entry: ModuleEntry) -> list[MethodInfo]:
        """A module's views that the caller may see."""
        caller = holder.principal()
        return [each for each in entry.methods.values() if each.view and may_exec(caller, entry.name, each.name)]

    async def product(self, holder: Holder, name: str) -> ModuleEntry:
        """One of `products`. Raises ModuleNotFound, NotFound."""
        entry = await self.system.registry.resolve(name)
        if not self.views(holder, entry):
            raise NotFound(f"there is no product {name[:100]!r}")
        return entry

    async def view(self, holder: Holder, product: str, name: str) -> tuple[ModuleEntry, MethodInfo]:
        """One view. Raises ModuleNotFound, NotFound, Forbidden."""
        entry = await self.system.registry.resolve(product)
        method = entry.methods.get(name)
        if method is None or not method.view:
            raise NotFound(f"product {entry.name!r} has no view {name[:100]!r}")
        require_exec(holder.principal(), entry.name, method.name)
        return entry, method
