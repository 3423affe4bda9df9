"""The events of one run as a stream: state, progress, output; resumed by `Last-Event-ID`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

from dataproc.access.scopes import require_some_exec
from dataproc.errors import InvalidParams
from dataproc.events import Event
from dataproc.types import Principal
from dataproc.web.auth import principal_of

if TYPE_CHECKING:
    from dataproc.composition import System

KEEP_ALIVE = 15.0  # seconds of silence after which a line without meaning keeps proxies from hanging up
AGAIN = 1000  # milliseconds after which a watcher that lost the connection is to come again
DEAF = 60.0  # seconds for which a watcher may take nothing at all
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would hold events back

router = APIRouter(tags=["runs"])


@router.get(
    "/api/v1/dataproc/runs/{run_id}/events",
    response_class=StreamingResponse,
    summary="The events of a run, by server-sent events",
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def events(
    request: Request,
    run_id: str,
    principal: Annotated[Principal, Depends(principal_of)],
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Events after `Last-Event-ID`, or from the first, until the run has ended. Each has an id, a kind and JSON."""
    require_some_exec(principal)
    system = cast("System", request.app.state.system)
    found = await system.ledger.watch(principal, run_id, _number(last_event_id), KEEP_ALIVE)
    return Stream(_written(found), media_type="text/event-stream", headers=HEADERS)


class Stream(StreamingResponse):
    """A stream that hangs up on who does not read: the events wait in their file."""

    async def stream_response(self, send: Send) -> None:
        """Send it, each piece within `DEAF` seconds."""

        async def within(message: Message) -> None:
            async with asyncio.timeout(DEAF):
                await send(message)

        with suppress(TimeoutError):
            await super().stream_response(within)


def _number(said: str | None) -> int:
    if said is None or said == "":
        return 0
    if not said.isascii() or not said.isdigit() or len(said) > 18:
        raise InvalidParams.field("Last-Event-ID", "is to be the id of an event")
    return int(said)


async def _written(found: AsyncIterator[Event | None]) -> AsyncIterator[bytes]:
    yield b"retry: %d\n\n" % AGAIN
    async for event in found:
        if event is None:
            yield b": still there\n\n"
        else:
            yield b"id: %d\nevent: %b\ndata: %b\n\n" % (event.id, event.kind.encode(), json.dumps(event.data).encode())
