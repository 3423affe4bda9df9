"""An RPC method as data: what the dispatcher runs and `rpc.discover` shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from dataproc.errors import DataprocError, Forbidden
from dataproc.jsonrpc import Encoded
from dataproc.types import Json, JsonObject, Principal
from dataproc.web.exchange import Exchange
from dataproc.web.params import Signature

Handler: TypeAlias = "Callable[..., Awaitable[Json | Encoded]]"
"""`await handler(exchange, **params)`, the params as the signature bound them."""


@dataclass(frozen=True, slots=True)
class RpcMethod:
    """One method of an endpoint.

    needs: the scope without which it is neither shown nor run; a narrower one (`needs:…`) will do here, and the
    handler looks closer. key_only: it takes a key, whatever scopes a token carries. admin: a key with that scope may
    call it too, with `all: true`, for what belongs to other keys. result: JSON Schema. errors: those of its own, beside
    what every call can meet.
    """

    name: str
    handler: Handler
    summary: str
    signature: Signature
    result: JsonObject
    needs: str | None = None
    errors: tuple[type[DataprocError], ...] = ()
    key_only: bool = False
    admin: bool = False

    def open_to(self, principal: Principal) -> bool:
        """Whether this caller has any use for it."""
        needs, scopes = self.needs, principal.scopes
        if self.key_only and principal.via != "key":
            return False
        if self.admin and "admin" in scopes and principal.via == "key":
            return True
        return needs is None or needs in scopes or any(scope.startswith(f"{needs}:") for scope in scopes)

    async def call(self, exchange: Exchange, params: list[Any] | dict[str, Any]) -> Json | Encoded:
        """Run it for this caller. Raises Forbidden, InvalidParams, and whatever the handler raises."""
        if not self.open_to(exchange.principal):
            if self.key_only and exchange.principal.via != "key":
                raise Forbidden(f"{self.name} takes a key: a token acts inside its session alone", scope=self.needs)
            raise Forbidden(f"{self.name} needs the scope {self.needs}", scope=self.needs)
        return await self.handler(exchange, **self.signature.bind(params))
