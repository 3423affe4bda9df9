"""How the facade answers what it refuses: `{"rc": 8, "messages": [text]}`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dataproc.errors import (
    DataprocError,
    ExecCancelled,
    ExecCrashed,
    ExecFailed,
    ExecTimeout,
    Interrupted,
    InvalidParams,
    Overloaded,
    SessionEnded,
)
from dataproc.web.asgi import refusal_headers

REFUSED = 8  # from here on there are messages and no data
TOLD = 4  # data, and messages
_ANSWERED = (ExecFailed, ExecCrashed, ExecTimeout, ExecCancelled, Interrupted)  # the request was good, its run was not


class Refusal(BaseModel):
    """What was refused, and why."""

    rc: int = Field(REFUSED, description="8 or more: messages and no data.")
    messages: list[str]


class FacadeRoute(APIRoute):
    """A route whose errors are answered as the facade's clients know them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                response = await handle(request)
                response.headers.setdefault("Cache-Control", "no-store")
                return response
            except RequestValidationError as error:
                faults = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()]
                return refused(InvalidParams("; ".join(faults[:5])))
            except DataprocError as error:
                return refused(error)

        return handled


def refused(error: DataprocError) -> Response:
    """The reply for an error."""
    body = Refusal(messages=[error.message]).model_dump()
    return JSONResponse(
        body, status_of(error), {name.decode(): value.decode() for name, value in refusal_headers(error)}
    )


def status_of(error: DataprocError) -> int:
    """A session that is over is unknown; a bound is 429; a run that failed is an answer like others."""
    if isinstance(error, SessionEnded):
        return 404
    if isinstance(error, Overloaded):
        return 429
    return 200 if isinstance(error, _ANSWERED) else error.http_status
