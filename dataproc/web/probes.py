"""Probes: alive, ready, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from sqlalchemy import text

from dataproc.engine.doctor import Layer, layers
from dataproc.errors import DataprocError, Forbidden
from dataproc.settings import Settings
from dataproc.telemetry import METRICS, METRICS_TYPE
from dataproc.web.auth import principal_of

if TYPE_CHECKING:
    from dataproc.composition import System

log = structlog.get_logger(__name__)

router = APIRouter(tags=["probes"])
PATIENCE = 5.0  # seconds for one check: a probe that hangs tells its asker nothing


@router.head("/livez", include_in_schema=False)
@router.get("/livez", response_class=PlainTextResponse, summary="Whether the process answers")
async def livez() -> str:
    """`ok`, as long as the event loop turns."""
    return "ok"


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Whether the server can do its work")
async def readyz(request: Request) -> Response:
    """200 or 503; which of the parts is wrong is told to those who may know."""
    system = cast("System", request.app.state.system)
    checks = {
        "database": _check("database", system.database.read(lambda connection: connection.execute(text("SELECT 1")))),
        "storage": _check("storage", system.workspaces.check()),
    }
    states = dict(zip(checks, await asyncio.gather(*checks.values()), strict=True))
    walls = layers(system.engine)
    states["sandbox"] = _sandbox(system.settings, walls)
    if system.sessions.draining:
        states["sessions"] = "draining"
    ready = not {"failed", "draining"} & set(states.values())
    body: dict[str, Any] = {"status": "ready" if ready else "unready"}
    if await _may_look(request, system):
        body |= {"checks": states, "sandbox": [asdict(layer) for layer in walls]}
    return JSONResponse(body, 200 if ready else 503)


def _sandbox(settings: Settings, walls: list[Layer]) -> str:
    if settings.sandbox == "off":
        return "off"
    standing = [layer for layer in walls if layer.in_force]
    return "ok" if len(standing) == len(walls) else "reduced" if standing else "failed"


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=PlainTextResponse, summary="Metrics for Prometheus")
async def metrics(request: Request) -> Response:
    """The metrics in Prometheus's text format."""
    system = cast("System", request.app.state.system)
    if not await _may_look(request, system):
        await principal_of(request)
        raise Forbidden("metrics need the scope admin", scope="admin")
    for state, count in system.pool.counts.items():
        METRICS.workers(state, count)
    return Response(METRICS.exposition(), media_type=METRICS_TYPE)


async def _check(what: str, work: Awaitable[Any]) -> str:
    try:
        await asyncio.wait_for(work, PATIENCE)
    except Exception as error:
        log.warning("check_failed", check=what, exc_info=error)
        return "failed"
    return "ok"


async def _may_look(request: Request, system: System) -> bool:
    if system.settings.metrics_public or system.settings.loopback:
        return True
    try:
        return "admin" in (await principal_of(request)).scopes
    except DataprocError:
        return False
