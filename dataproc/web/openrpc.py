"""The OpenRPC description of the endpoints, made from the method tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter

from dataproc.errors import (
    DataprocError,
    Forbidden,
    InternalError,
    InvalidParams,
    InvalidRequest,
    ParseError,
    SessionEnded,
    Unauthorized,
    UnknownRpcMethod,
)
from dataproc.types import Json, JsonObject
from dataproc.web import VERSION
from dataproc.web.exchange import Exchange
from dataproc.web.methods import RpcMethod
from dataproc.web.params import REQUIRED, Param, Signature

EVERYWHERE: tuple[type[DataprocError], ...] = (
    ParseError,
    InvalidRequest,
    UnknownRpcMethod,
    InvalidParams,
    InternalError,
    Unauthorized,
    SessionEnded,
    Forbidden,
)


def document(methods: Iterable[tuple[str, RpcMethod]], url: str = "") -> JsonObject:
    """OpenRPC 1.3 for pairs of path and method; one name at several paths stands once, with all its servers."""
    paths: dict[str, list[str]] = {}
    found: dict[str, RpcMethod] = {}
    for path, method in methods:
        found.setdefault(method.name, method)
        paths.setdefault(method.name, []).append(path)
    described = [_method(method, [f"{url}{path}" for path in paths[name]]) for name, method in found.items()]
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "dataproc",
            "version": VERSION,
            "description": "Session and module calls over JSON-RPC 2.0.",
        },
        "methods": list[Json](described),
        "components": {"errors": {kind.name: _error(kind) for kind in EVERYWHERE}},
    }


def discovery(path: str, methods: tuple[RpcMethod, ...]) -> RpcMethod:
    """`rpc.discover` of the endpoint at `path`: what of its table is open to the caller."""

    async def discover(exchange: Exchange) -> Json:
        shown = [(path, method) for method in methods if method.open_to(exchange.principal)]
        return document(shown, exchange.system.settings.public_url or "")

    return RpcMethod("rpc.discover", discover, "This description.", Signature(()), {"type": "object"})


def router(tables: Mapping[str, tuple[RpcMethod, ...]], url: str) -> APIRouter:
    """`/openrpc.json`: all methods of all endpoints."""
    described = document(((path, method) for path, methods in tables.items() for method in methods), url)
    routes = APIRouter(tags=["description"])

    @routes.head("/openrpc.json", include_in_schema=False)
    @routes.get("/openrpc.json", summary="OpenRPC description of the JSON-RPC endpoints")
    async def openrpc_json() -> dict[str, Any]:
        return described

    return routes


def _method(method: RpcMethod, urls: list[str]) -> dict[str, Any]:
    return {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "either",
        "servers": [{"name": url.rsplit("/", 2)[-2], "url": url} for url in urls],
        "params": [_param(param) for param in method.signature.params],
        "result": {"name": "result", "schema": method.result},
        "errors": [
            *[{"$ref": f"#/components/errors/{kind.name}"} for kind in EVERYWHERE],
            *[_error(kind) for kind in method.errors],
        ],
        **({"x-scope": method.needs} if method.needs else {}),
    }


def _param(param: Param) -> JsonObject:
    default = {} if param.default is REQUIRED else {"default": param.default}
    return {
        "name": param.name,
        "summary": param.summary,
        "required": param.default is REQUIRED,
        "schema": {**param.schema, **default},
        **({"x-by-name-only": True} if param.by_name else {}),
    }


def _error(kind: type[DataprocError]) -> dict[str, Any]:
    about = (kind.__doc__ or "").strip()
    return {"code": kind.code, "message": about, "data": {"name": kind.name, "retryable": kind.retryable}}
