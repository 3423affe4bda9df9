"""The peers: other ways to do the same job, append a line to a file in the session's folder and answer the count.

bare: a FastAPI route in process. pool: FastAPI and a ProcessPoolExecutor. jsonrpc: fastapi-jsonrpc in process. None
has sessions that end, credentials, isolation or records.
files: transfers alone. Run as `python -m benchmarks.peers NAME FOLDER`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Header, Request
from fastapi.responses import FileResponse

from benchmarks.callers import Target
from benchmarks.processes import serving

REPOSITORY = Path(__file__).parent.parent
LINE = b"call\n"
PATH = "/rpc"
FILES = "/files/"
BODY = '{"jsonrpc":"2.0","id":1,"method":"call","params":{}}'


def append(folder: str) -> int:
    """The work: one line more, and how many there are."""
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/calls.log", "a+b") as lines:
        lines.write(LINE)
        lines.flush()
        return lines.tell() // len(LINE)


def bare(root: str) -> Any:
    """One FastAPI route."""
    app = FastAPI()

    @app.post(PATH)
    async def call(request: Request, body: dict[str, Any]) -> dict[str, Any]:
        count = append(f"{root}/{request.headers['xdata-session-token']}")
        return {"jsonrpc": "2.0", "id": body["id"], "result": count}

    return app


def pool(root: str) -> Any:
    """The same, with the work in one of two processes."""
    processes = ProcessPoolExecutor(2)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with processes:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post(PATH)
    async def call(request: Request, body: dict[str, Any]) -> dict[str, Any]:
        folder = f"{root}/{request.headers['xdata-session-token']}"
        count = await asyncio.get_running_loop().run_in_executor(processes, append, folder)
        return {"jsonrpc": "2.0", "id": body["id"], "result": count}

    return app


def jsonrpc(root: str) -> Any:
    """A method of fastapi-jsonrpc."""
    import fastapi_jsonrpc

    app = fastapi_jsonrpc.API()
    entrypoint = fastapi_jsonrpc.Entrypoint(PATH)

    def call(xdata_session_token: str = Header()) -> int:
        return append(f"{root}/{xdata_session_token}")

    call.__annotations__ = {"xdata_session_token": str, "return": int}  # it reads them as types, not as text
    entrypoint.method()(call)
    app.bind_entrypoint(entrypoint)  # type: ignore[no-untyped-call]
    return app


def files(root: str) -> Any:
    """Files by Starlette's own means, and by a route that only writes the body down."""
    app = FastAPI()

    @app.get(FILES + "{name}")
    async def read(name: str) -> FileResponse:
        return FileResponse(f"{root}/{name}")

    @app.put(FILES + "{name}")
    async def write(name: str, request: Request) -> None:
        with open(f"{root}/{name}", "wb") as file:  # noqa: ASYNC230 - the barest
            async for piece in request.stream():
                file.write(piece)

    return app


PEERS: dict[str, Callable[[str], Any]] = {"bare": bare, "pool": pool, "jsonrpc": jsonrpc, "files": files}
NEEDS = {"jsonrpc": "fastapi_jsonrpc"}


def missing(name: str) -> str | None:
    """The package that a peer lacks here."""
    need = NEEDS.get(name)
    return need.replace("_", "-") if need and find_spec(need) is None else None


class Peer:
    """A peer that is up."""

    def __init__(self, port: int) -> None:
        self.port = port

    def open(self) -> Target:
        """A new session, which for a peer is just a name."""
        headers = {"Content-Type": "application/json", "Xdata-Session-Token": uuid.uuid4().hex}
        return Target(self.port, PATH, headers, BODY)


@contextmanager
def peer(name: str, folder: Path) -> Iterator[Peer]:
    """The peer of that name, up, with a folder of its own."""
    (folder / name).mkdir()
    command = [sys.executable, "-m", "benchmarks.peers", name, str(folder / name)]
    with serving(command, os.environ, folder / f"{name}.log", REPOSITORY) as served:
        yield Peer(served.port)


def main(name: str, root: str) -> None:
    """Serve the peer on a free port, which is printed."""
    import uvicorn

    bound = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{bound.getsockname()[1]}", flush=True)
    config = uvicorn.Config(PEERS[name](root), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main(*sys.argv[1:])
