"""Errors of ordinary routes: the same `code`, `message` and `data` as in JSON-RPC, with an HTTP status of their own."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from dataproc import jsonrpc
from dataproc.errors import (
    DataprocError,
    Forbidden,
    InternalError,
    InvalidParams,
    InvalidRequest,
    NotFound,
    TooLarge,
    Unauthorized,
)
from dataproc.web.asgi import REQUEST_ID_OF_REPLY, refusal_headers, status_of

log = structlog.get_logger(__name__)


class RefusalError(BaseModel):
    """What was refused, and why."""

    code: int
    message: str
    data: dict[str, Any]


class Refusal(BaseModel):
    """The body of every refusal."""

    error: RefusalError


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "Wrong params: `data.errors` has an entry for each"},
    401: {"model": Refusal, "description": "No credentials, wrong ones, or a session that is over"},
    403: {"model": Refusal, "description": "The credentials lack the scope in `data.scope`"},
    404: {"model": Refusal, "description": "Nothing of that name"},
    503: {"model": Refusal, "description": "The storage does not answer, or a bound is reached"},
}

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

_KINDS: dict[int, type[DataprocError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound, 413: TooLarge}


def install(app: FastAPI) -> None:
    """Give the application its exception handlers."""
    app.add_exception_handler(DataprocError, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _unprocessable)
    app.add_exception_handler(Exception, _failed)


def without_422(schema: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document without the answer that FastAPI would give to wrong params; ours is the 400."""
    for operations in schema.get("paths", {}).values():
        for operation in operations.values():
            operation.get("responses", {}).pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schema.get("components", {}).get("schemas", {}).pop(name, None)
    return schema


def envelope(request: Request, error: DataprocError, status: int) -> Response:
    """`{"error": {code, message, data}}` with that status."""
    content = jsonrpc.dumps({"error": jsonrpc.error_object(error, request_id=request.scope.get(REQUEST_ID_OF_REPLY))})
    response = Response(content, status, media_type="application/json")
    response.raw_headers.extend(refusal_headers(error))
    return response


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, DataprocError)
    return envelope(request, error, status_of(error))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = _KINDS.get(error.status_code, InvalidRequest if error.status_code < 500 else InternalError)
    standard = HTTPStatus(error.status_code).phrase
    told = f"{standard}: {request.method} {request.url.path}" if error.detail in ("", standard) else str(error.detail)
    response = envelope(request, kind(told), error.status_code)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    if error.status_code == 405:  # what raised it knows the methods of one route alone
        response.headers["Allow"] = ", ".join(filter(partial(_is_allowed, request), METHODS))
    return response


def _is_allowed(request: Request, method: str) -> bool:
    return any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)


async def _unprocessable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [{"loc": list(each["loc"]), "msg": each["msg"], "type": each["type"]} for each in error.errors()]
    told = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:5])
    return envelope(request, InvalidParams(told, errors=faults), InvalidParams.http_status)


async def _failed(request: Request, error: Exception) -> Response:
    request_id = request.scope.get(REQUEST_ID_OF_REPLY)
    log.error("request_failed", request_id=request_id, path=request.url.path, exc_info=error)
    return envelope(request, InternalError("the server failed; its log has the cause under the request id"), 500)
