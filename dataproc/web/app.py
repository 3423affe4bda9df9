"""The application: every route of the server, joined in one function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dataproc.telemetry import METRICS
from dataproc.web import VERSION, cra, events, files, model_upload, openrpc, probes, refusals
from dataproc.web.asgi import REQUEST_ID_OF_REPLY, cut_off, request_id_of
from dataproc.web.auth import RESOLVE_PATHS, SESSION_OF_REPLY, Resolve
from dataproc.web.background import Background
from dataproc.web.catalogue_api import dataset_methods, model_store_methods
from dataproc.web.dataproc_api import dataproc_methods, module_methods
from dataproc.web.forwarding import Forwarding
from dataproc.web.operator_api import operator_methods
from dataproc.web.rpc import RpcEndpoint
from dataproc.web.session_api import session_methods

if TYPE_CHECKING:
    from dataproc.composition import System


def create_app(system: System) -> FastAPI:
    """The server's HTTP face over a system that its owner starts before, and stops after, serving.

    The application's own lifespan lets notifications finish; serve it with lifespan on.
    """
    settings, background = system.settings, Background()
    METRICS.build(VERSION)
    tables = {
        "/api/v1/session/jsonrpc": session_methods(settings),
        "/api/v2/session/jsonrpc": session_methods(settings),
        "/api/v1/dataproc/jsonrpc": (*dataproc_methods(settings), *operator_methods()),
        "/api/v2/module/jsonrpc": module_methods(settings),
        "/api/v2/dataset/jsonrpc": dataset_methods(),
        "/api/v2/model_store/jsonrpc": model_store_methods(),
    }
    endpoints = {path: RpcEndpoint(system, path, methods, background) for path, methods in tables.items()}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await background.drain(settings.close_wait)
        if forwarding is not None:
            await forwarding.close()

    forwarding = None if settings.local_storage else Forwarding(system)
    app = Application(
        endpoints,
        forwarding,
        settings.cra_service,
        title="dataproc",
        version=VERSION,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.system = system
    app.state.cra = cra.Facade(system, background)
    refusals.install(app)
    app.include_router(files.router)
    app.include_router(model_upload.router)
    app.include_router(cra.router)
    app.include_router(events.router)
    app.include_router(probes.router)
    app.include_router(openrpc.router(tables, settings.public_url or ""))
    resolve = Resolve(system)
    app.router.routes += [Route("/auth/resolve", resolve), Route("/auth/resolve/{anything:any}", resolve)]
    return app


class Application(FastAPI):
    """FastAPI with the JSON-RPC endpoints in front of its middleware, and every other reply named."""

    def __init__(
        self, endpoints: Mapping[str, ASGIApp], forwarding: Forwarding | None, service: str, **options: Any
    ) -> None:
        """service: the name of this server in addresses of the REST facade."""
        super().__init__(**options)
        self.endpoints = endpoints
        self.forwarding = forwarding
        self.service = service

    def openapi(self) -> dict[str, Any]:
        """The document of the ordinary routes."""
        document = refusals.without_422(super().openapi())
        document["paths"].update(RESOLVE_PATHS)
        return document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        if self.forwarding is not None:
            scope = cra.canonical(scope, self.service)
            if await self.forwarding(scope, receive, send):
                return
        endpoint = self.endpoints.get(scope["path"])
        if endpoint is not None:
            await endpoint(scope, receive, send)
            return
        scope = cra.canonical(scope, self.service)
        request_id = request_id_of(dict(scope["headers"]).get(b"x-request-id"))
        scope[REQUEST_ID_OF_REPLY] = request_id
        begun = False

        async def named(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                if session := scope.get(SESSION_OF_REPLY):
                    headers.append((b"xdata-session-id", session.encode()))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await super().__call__(scope, receive, named)
        except asyncio.CancelledError:
            if not self.state.system.executor.stopping:
                raise
            if not begun:  # a reply that is ends in its middle, which its client sees
                error = cut_off()
                await refusals.envelope(Request(scope), error, error.http_status)(scope, receive, named)
