"""What takes the scope `admin`: who uses how much, and the end of a server's work before it is stopped."""

from __future__ import annotations

from dataclasses import asdict

import structlog

from dataproc.access.scopes import ADMIN
from dataproc.database.usage import use_by_key
from dataproc.types import Json, JsonObject
from dataproc.web.exchange import Exchange
from dataproc.web.methods import RpcMethod
from dataproc.web.params import Param, Signature, boolean

log = structlog.get_logger(__name__)

_COUNT: JsonObject = {"type": "integer"}


def operator_methods() -> tuple[RpcMethod, ...]:
    """Those that stand beside the methods of `/api/v1/dataproc/jsonrpc`."""
    use: JsonObject = {
        "type": "object",
        "properties": {
            "key": {"type": "string"},
            "name": {"type": ["string", "null"]},
            "sessions": {"type": "object", "additionalProperties": _COUNT},
            "runs": _COUNT,
        },
    }
    drained: JsonObject = {
        "type": "object",
        "properties": {"draining": {"type": "boolean"}, "busy": _COUNT},
        "required": ["draining", "busy"],
    }
    switch = Param("on", boolean, {"type": "boolean"}, "false takes it back.", True)
    return (
        RpcMethod(
            "dataproc.get_usage",
            get_usage,
            "Sessions and runs of each key.",
            Signature(()),
            {"type": "object", "properties": {"keys": {"type": "array", "items": use}}},
            needs=ADMIN,
            key_only=True,
        ),
        RpcMethod(
            "dataproc.drain",
            drain,
            "Have this server open no session and begin no run from now on; what is under way finishes.",
            Signature((switch,)),
            drained,
            needs=ADMIN,
            key_only=True,
        ),
    )


async def get_usage(exchange: Exchange) -> Json:
    """Every key, the busiest first."""
    found = await exchange.system.database.read(use_by_key)
    return {"keys": [asdict(each) for each in found]}


async def drain(exchange: Exchange, on: bool) -> Json:
    """Whether it is drained, and how many runs and transfers are under way still; asked again, how it stands."""
    system = exchange.system
    if system.sessions.draining != on:
        system.sessions.draining = on
        event = "server_drained" if on else "server_resumed"
        system.database.audit.tell(event, exchange.actor, key=exchange.principal.key)
        log.info(event)
    return {"draining": on, "busy": system.database.use.busy}
