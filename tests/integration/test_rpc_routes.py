"""Ordinary routes beside the endpoints: probes, descriptions, errors; and the protocol on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from dataproc.executor import Call
from dataproc.runs import Completed, Outcome
from dataproc.web.server import PeerProtocol
from tests.factories import DATAPROC, World, a_call, a_world, an_exec, open_session, with_key, with_token


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        yield made


@asynccontextmanager
async def served(world: World, listener: socket.socket) -> AsyncIterator[None]:
    """The world behind uvicorn, as `dataproc serve` runs it."""
    config = uvicorn.Config(
        world.app, http=PeerProtocol, log_config=None, access_log=False, lifespan="on", ws="none", proxy_headers=False
    )
    server, started = uvicorn.Server(config), asyncio.Event()
    startup = server.startup

    async def told(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = told  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve([listener]))
    await asyncio.wait_for(started.wait(), 10)
    try:
        yield
    finally:
        server.should_exit = True
        await task


def a_port() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


async def test_probes_on_loopback(world: World) -> None:
    """Alive, ready with its parts, and metrics with the calls counted."""
    async with world.client(with_key(await world.key())) as client:
        assert (await client.get("/livez")).text == "ok"
        await client.post(DATAPROC, json=a_call("dataproc.get_server_version"))
        metrics = await client.get("/metrics")
        ready = await client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"] == {"database": "ok", "storage": "ok", "sandbox": "off"}
    assert 'dataproc_rpc_requests_total{method="dataproc.get_server_version",outcome="ok"}' in metrics.text
    assert metrics.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openrpc.json"])
async def test_what_can_be_read_can_be_asked_for_by_head(world: World, path: str) -> None:
    """Balancers and `curl -I` ask with HEAD: the status of GET."""
    async with world.client() as client:
        assert (await client.head(path)).status_code == 200


async def test_details_beyond_loopback_need_admin(tmp_path: Path) -> None:
    """Strangers learn whether the server is ready, and no more."""
    async with a_world(tmp_path, host="0.0.0.0") as world:
        admin = await world.key(scopes=["admin"])
        async with world.client() as stranger, world.client(with_key(await world.key())) as user:
            assert (await stranger.get("/readyz")).json() == {"status": "ready"}
            assert (await stranger.get("/metrics")).status_code == 401
            assert (await user.get("/metrics")).json()["error"]["code"] == -32002
        async with world.client(with_key(admin)) as client:
            assert "checks" in (await client.get("/readyz")).json()
            assert (await client.get("/metrics")).status_code == 200


async def test_not_ready_without_its_database(world: World) -> None:
    """A part that fails makes it 503 and is named."""
    await world.database.close()
    async with world.client() as client:
        response = await client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["checks"]["database"] == "failed"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("POST", "/livez", 405)])
async def test_errors_of_ordinary_routes(world: World, method: str, path: str, status: int) -> None:
    """The framework's own refusals come in the same envelope."""
    async with world.client() as client:
        response = await client.request(method, path)
    assert response.status_code == status
    assert {"code", "message", "data"} == response.json()["error"].keys()
    assert response.json()["error"]["data"]["request_id"] == response.headers["x-request-id"]


async def test_the_other_descriptions(world: World) -> None:
    """The OpenAPI document has the ordinary routes, and the page that shows it is there."""
    async with world.client() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert (await client.get("/docs")).status_code == 200
    assert {"/livez", "/readyz", "/metrics", "/openrpc.json", "/auth/resolve"} <= paths.keys()


async def test_a_call_survives_its_caller(tmp_path: Path) -> None:
    """A client that hangs up does not end the run that it waits for."""
    begun, gone, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(call: Call, folder: Path) -> Outcome:
        begun.set()
        await gone.wait()
        await asyncio.sleep(0)
        ended.set()
        return Completed(True)

    async with a_world(tmp_path, {"plain": {"slow": slow}}) as world:
        key = await world.key()
        with a_port() as listener:
            async with served(world, listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                body = json.dumps(an_exec("slow"))
                headers = "".join(f"{name}: {value}\r\n" for name, value in with_key(key).items())
                head = f"POST {DATAPROC} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
                writer.write((head + body).encode())
                await asyncio.wait_for(begun.wait(), 10)
                writer.transport.abort()
                gone.set()
                await asyncio.wait_for(ended.wait(), 10)
        assert world.directories() == []


async def test_half_a_request_is_no_call(world: World) -> None:
    """A client that leaves in the middle of its body has called nothing."""
    key = await world.key()
    with a_port() as listener:
        async with served(world, listener), world.client(with_key(key)) as client:
            token = (await open_session(client))["access_token"]
            _, writer = await asyncio.open_connection(*listener.getsockname())
            head = f"POST {DATAPROC} HTTP/1.1\r\nHost: x\r\nXdata-Session-Token: {token}\r\nContent-Length: 100\r\n\r\n"
            writer.write(head.encode() + b'{"jsonrpc"')
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            address = "http://{}:{}".format(*listener.getsockname())
            async with httpx.AsyncClient(headers=with_token(token)) as other:
                assert (await other.post(address + DATAPROC, json=an_exec())).json()["result"] == 1
    assert len(world.executor.calls) == 1


@pytest.mark.parametrize("peers", ["unix", ""])
async def test_a_gateway_on_a_unix_socket(tmp_path: Path, peers: str) -> None:
    """The uid at the other end of the socket makes a trusted peer, where the settings say so."""
    async with a_world(tmp_path, gateway_peers=peers) as world:
        with socket.socket(socket.AF_UNIX) as listener:
            where = str(tmp_path / "s")
            listener.bind(where)
            async with served(world, listener):
                transport = httpx.AsyncHTTPTransport(uds=where)
                headers = {"Xdata-Session-Id": "their-session"}
                async with httpx.AsyncClient(
                    transport=transport, headers=headers, base_url="http://dataproc"
                ) as client:
                    response = await client.post(DATAPROC, json=an_exec())
    assert response.status_code == (200 if peers else 401), os.getuid()
