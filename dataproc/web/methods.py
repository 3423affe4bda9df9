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
    handler looks closer. result: JSON Schema. errors: those of its own, beside what every call can meet.
    """

    name: str
    handler: Handler
    summary: str
    signature: Signature
    result: JsonObject
    needs: str | None = None
    errors: tuple[type[DataprocError], ...] = ()

    def open_to(self, principal: Principal) -> bool:
        """Whether this caller has any use for it."""
        needs, scopes = self.needs, principal.scopes
        return needs is None or needs in scopes or any(scope.startswith(f"{needs}:") for scope in scopes)

    async def call(self, exchange: Exchange, params: list[Any] | dict[str, Any]) -> Json | Encoded:
        """Run it for this caller. Raises Forbidden, InvalidParams, and whatever the handler raises."""
        if not self.open_to(exchange.principal):
            raise Forbidden(f"{self.name} needs the scope {self.needs}", scope=self.needs)
        return await self.handler(exchange, **self.signature.bind(params))
