"""Errors of ordinary routes: the same `code`, `message` and `data` as in JSON-RPC, with an HTTP status of their own."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

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

_KINDS: dict[int, type[DataprocError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound, 413: TooLarge}


def install(app: FastAPI) -> None:
    """Give the application its exception handlers."""
    app.add_exception_handler(DataprocError, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _unprocessable)
    app.add_exception_handler(Exception, _failed)


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
    return response


async def _unprocessable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [{"loc": list(each["loc"]), "msg": each["msg"], "type": each["type"]} for each in error.errors()]
    told = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:5])
    return envelope(request, InvalidParams(told, errors=faults), InvalidParams.http_status)


async def _failed(request: Request, error: Exception) -> Response:
    request_id = request.scope.get(REQUEST_ID_OF_REPLY)
    log.error("request_failed", request_id=request_id, path=request.url.path, exc_info=error)
    return envelope(request, InternalError("the server failed; its log has the cause under the request id"), 500)
