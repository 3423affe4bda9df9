"""Things that a test needs, valid by default, and the in-memory doubles that stand in for the engine.

`a_world` is a System whose rooms are all real but for two: methods of modules are coroutines of the test's process.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from fastapi import FastAPI

from dataproc.access import Authenticator, Keys, NewKey, require_exec
from dataproc.catalogue import Catalogue
from dataproc.clock import Clock, SystemClock
from dataproc.database import Database, RunStore
from dataproc.engine.local import LocalEngine
from dataproc.engine.pool import WorkerPool
from dataproc.errors import MethodNotFound, ModuleNotFound
from dataproc.executor import Call, Ended
from dataproc.reaper import Reaper
from dataproc.runs import Completed, Outcome, Run
from dataproc.sessions import Sessions
from dataproc.settings import Settings
from dataproc.storage import Workspaces, open_workspaces
from dataproc.telemetry import Metrics
from dataproc.web.app import create_app

DATAPROC = "/api/v1/dataproc/jsonrpc"
MODULE = "/api/v2/module/jsonrpc"
SESSION = "/api/v1/session/jsonrpc"
DATASET = "/api/v2/dataset/jsonrpc"
MODEL_STORE = "/api/v2/model_store/jsonrpc"

Method = Callable[[Call, Path], Awaitable[Outcome]]
"""A method of a module: the call and the session directory in, how it ended out."""


def a_settings(folder: Path, **chosen: Any) -> Settings:
    """Settings on a folder of the test's own, whatever `.env` lies about."""
    return Settings(
        _env_file=None,
        modules_dir=folder / "modules",
        **{"sandbox": "off", "storage_url": str(folder / "storage"), **chosen},
    )


@dataclass
class InProcessModules:
    """A registry and an executor over plain coroutines, by module and method; every call is kept in `calls`."""

    modules: Mapping[str, Mapping[str, Method]]
    workspaces: Workspaces
    sessions: Sessions
    clock: SystemClock = field(default_factory=SystemClock)
    calls: list[Call] = field(default_factory=list)
    _left: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def resolve(self, name: str) -> SimpleNamespace:
        """The module, by its canonical name in any spelling."""
        canonical = name.lower().replace("_", "-")
        if canonical not in self.modules:
            raise ModuleNotFound(f"there is no module {name!r}", module=name)
        return SimpleNamespace(name=canonical)

    async def list(self) -> list[dict[str, Any]]:
        """The rows of all modules."""
        return [{"name": name, "state": "ready", "methods": list(methods)} for name, methods in self.modules.items()]

    async def describe_module(self, name: str) -> dict[str, Any]:
        """The row of one, with its methods in full."""
        found = (await self.resolve(name)).name
        return {"name": found, "state": "ready", "methods": [{"name": method} for method in self.modules[found]]}

    async def execute(self, call: Call) -> Ended:
        """Run a call as the engine would: on record, in the session's directory, with its session in use."""
        require_exec(call.principal, call.module, call.method)
        method = self.modules[call.module].get(call.method)
        if method is None:
            raise MethodNotFound(f"{call.module} has no method {call.method}", module=call.module, method=call.method)
        self.calls.append(call)
        run = Run(str(uuid.uuid4()), call.principal.key, call.session, call.module, call.method, self.clock.now())
        self.sessions.enter(call.session)
        call.begun()
        try:
            async with self.workspaces.of(call.session).checkout() as tree:
                outcome = await method(call, tree.files)
        finally:
            self.sessions.leave(call.session)
            async with self._left:
                self._left.notify_all()
        return Ended(run.id, run.session, outcome)

    calling = False

    async def quiesce(self, session_id: str, wait: float) -> None:
        """Wait until the session has no run."""
        async with asyncio.timeout(wait), self._left:
            await self._left.wait_for(lambda: not self.sessions.running(session_id))


async def append(call: Call, folder: Path) -> Outcome:
    """Append a line to the session's file; the number of lines."""
    with (folder / "calls.log").open("a+") as file:
        file.write("call\n")
        return Completed(file.tell() // 5)


async def nothing(call: Call, folder: Path) -> Outcome:
    """Return nothing, which is answered as true."""
    return Completed(True)


async def echo(call: Call, folder: Path) -> Outcome:
    """Return the call's objects."""
    return Completed({"params": call.params, "input": call.input, "output": call.output})


@dataclass
class World:
    """A System for tests, its application, and where its files are."""

    settings: Settings
    clock: Clock
    database: Database
    keys: Keys
    authenticator: Authenticator
    sessions: Sessions
    workspaces: Workspaces
    engine: LocalEngine
    registry: InProcessModules
    executor: InProcessModules
    reaper: Reaper
    folder: Path
    pool: WorkerPool = field(init=False)
    app: FastAPI = field(init=False)
    catalogue: Catalogue = field(init=False)

    def __post_init__(self) -> None:
        self.pool = WorkerPool(self.engine, self.settings)
        self.catalogue = Catalogue(self.database, self.settings, self.workspaces.folders.root)
        self.app = create_app(self)  # type: ignore[arg-type]

    async def key(self, name: str = "", **chosen: Any) -> NewKey:
        """A fresh key."""
        return await self.keys.create(name or f"key-{uuid.uuid4()}", **chosen)

    def client(self, headers: dict[str, str] | None = None, peer: str = "127.0.0.1") -> httpx.AsyncClient:
        """A client that sends these headers, from that address."""
        transport = httpx.ASGITransport(self.app, client=(peer, 40000), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://dataproc", headers=headers)

    def directories(self) -> list[Path]:
        """The session directories that there are."""
        return sorted((self.folder / "storage" / "sessions").glob("*/*/files"))


@asynccontextmanager
async def a_world(
    folder: Path, methods: Mapping[str, Mapping[str, Method]] | None = None, clock: Clock | None = None, **chosen: Any
) -> AsyncIterator[World]:
    """A World that is up."""
    settings, clock = a_settings(folder, **chosen), clock or SystemClock()
    (folder / "storage").mkdir(exist_ok=True)
    database = await Database.open(settings.database, clock)
    sessions, workspaces = Sessions(database, settings), open_workspaces(settings)
    modules = InProcessModules(
        methods or {"plain": {"append": append, "nothing": nothing, "echo": echo}}, workspaces, sessions
    )
    reaper = Reaper(sessions, RunStore(database), modules, workspaces, settings, Metrics())
    try:
        yield World(
            settings,
            clock,
            database,
            Keys(database),
            Authenticator(database, settings),
            sessions,
            workspaces,
            LocalEngine(settings, "test"),
            modules,
            modules,
            reaper,
            folder,
        )
    finally:
        await workspaces.close()
        await database.close()


def with_key(key: NewKey) -> dict[str, str]:
    """Headers of a caller with a key."""
    return {"APIKey": key.apikey, "Secret": key.secret}


def with_token(token: str) -> dict[str, str]:
    """Headers of a caller with a token."""
    return {"Xdata-Session-Token": token}


def a_call(method: str, params: Any = None, call_id: Any = 1) -> dict[str, Any]:
    """A request object."""
    return {"jsonrpc": "2.0", "method": method, "params": {} if params is None else params, "id": call_id}


def an_exec(method: str = "append", module: str = "plain", **members: Any) -> dict[str, Any]:
    """A request object of `dataproc.exec`."""
    return a_call("dataproc.exec", {"module": module, "method": method, **members})


async def call(client: httpx.AsyncClient, method: str, params: Any = None, *, path: str | None = None) -> Any:
    """The response object of one call, at the endpoint that its name belongs to."""
    where = path or {"session": SESSION, "module": MODULE, "dataset": DATASET, "model_store": MODEL_STORE}.get(
        method.partition(".")[0], DATAPROC
    )
    response = await client.post(where, json=a_call(method, params))
    assert response.status_code == 200, response.text
    return response.json()


async def open_session(client: httpx.AsyncClient, **params: Any) -> dict[str, Any]:
    """The result of `session.open_session`."""
    answer = await call(client, "session.open_session", params)
    assert "result" in answer, json.dumps(answer)
    return dict(answer["result"])
