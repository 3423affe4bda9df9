"""The one way that every call takes: from names to a finished run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from dataproc.access.scopes import require_exec
from dataproc.admission import Admission
from dataproc.clock import Clock
from dataproc.database.runs import RunStore
from dataproc.engine.launch import Demand, Profile
from dataproc.engine.output import Output
from dataproc.engine.pool import WorkerPool
from dataproc.engine.worker import Task, Worker
from dataproc.errors import ExecCrashed, InvalidParams, Overloaded
from dataproc.registry import MethodInfo, ModuleEntry, Registry
from dataproc.runs import Cancelled, Completed, Crashed, Outcome, Run, WasInterrupted, error_of
from dataproc.sessions import Sessions
from dataproc.settings import Settings
from dataproc.storage import Tree, Workspaces
from dataproc.telemetry import METRICS
from dataproc.types import JsonObject, Principal, new_id


@dataclass(frozen=True, slots=True)
class Call:
    """One validated request. session: the id of a live session; module and method: names; timeout: seconds or None."""

    principal: Principal
    session: str
    module: str
    method: str
    params: JsonObject
    input: JsonObject
    output: JsonObject
    timeout: float | None
    request_id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, and how."""

    run: Run
    outcome: Outcome


class Executor:
    """Joins the other rooms for one call."""

    def __init__(
        self, settings: Settings, clock: Clock, registry: Registry, sessions: Sessions, workspaces: Workspaces,
        pool: WorkerPool, runs: RunStore, node: str,
    ) -> None:  # fmt: skip
        self.settings, self.clock, self.node = settings, clock, node
        self.registry, self.sessions, self.workspaces = registry, sessions, workspaces
        self.pool, self.runs = pool, runs
        self.admission = Admission(settings)
        self.logs = (settings.local_storage or settings.node_dir) / "runs"
        self._under_way: dict[str, int] = {}
        self._drained: dict[str, asyncio.Future[None]] = {}
        self._exclusive: dict[tuple[str, str, str], asyncio.Lock] = {}
        self._ending: dict[str, Outcome] = {}  # sessions whose runs are being ended, and as what
        self._stopping = False

    async def execute(self, call: Call) -> Ended:
        """Run one call. Raises DataprocError where no run began; whatever becomes of a run is its outcome."""
        entry = await self.registry.resolve(call.module)
        method = entry.method(call.method)
        require_exec(call.principal, entry.name, method.name)
        method.check(call.params)
        task = self._task(call, method)
        created = self.clock.now()
        self._enter(call.session)
        try:
            await self.admission.enter(call.principal.key)
            started, ticks = self.clock.now(), self.clock.monotonic()
            try:
                outcome = await self._run(call, entry, method, task)
            finally:
                took = self.clock.monotonic() - ticks
                self.admission.leave(took)
        finally:
            self._leave(call.session)
        run = self._record(call, entry, task, outcome, (created, started))
        METRICS.run(entry.name, method.name, outcome.status.value, took)
        if type(outcome) is Completed:
            self.runs.behind(run)
        else:
            await self.runs.finish(run)  # its id is about to be told
        return Ended(run, outcome)

    async def _run(self, call: Call, entry: ModuleEntry, method: MethodInfo, task: Task) -> Outcome:
        """Check the workspace out and a worker; leaving commits the files."""
        if method.exclusive:
            turn = self._exclusive.setdefault((call.session, entry.name, method.name), asyncio.Lock())
            async with turn:
                return await self._in_workspace(call, entry, method, task)
        return await self._in_workspace(call, entry, method, task)

    async def _in_workspace(self, call: Call, entry: ModuleEntry, method: MethodInfo, task: Task) -> Outcome:
        if (ending := self._ending.get(call.session)) is not None:
            return ending
        demand = Demand(call.session, entry.generation, self._profile(entry, method))
        async with self.workspaces.of(call.session).checkout() as tree:
            try:
                worker = await self.pool.lease(demand, lambda: self._folders(call, entry, tree))
            except ExecCrashed as error:
                return Crashed(reason=error.message)
            try:
                return await self._on_worker(worker, call.session, task)
            finally:
                self.pool.release(worker)

    async def _on_worker(self, worker: Worker, session: str, task: Task) -> Outcome:
        if (ending := self._ending.get(session)) is not None:
            return ending
        return await worker.run(task)

    async def _folders(self, call: Call, entry: ModuleEntry, tree: Tree) -> dict[str, Path]:
        application = await self.workspaces.application(call.principal.key, entry.name)
        return {"session": tree.files, "locks": tree.locks, "application": application}

    def _task(self, call: Call, method: MethodInfo) -> Task:
        """What the worker is told; the limits are the caller's, else the method's, else the settings'."""
        settings, limits = self.settings, method.limits
        timeout = call.timeout or limits.timeout or settings.run_timeout
        run = new_id()
        return Task(
            run, method.name, call.params, min(timeout, settings.max_run_timeout),
            settings.run_grace if limits.grace is None else limits.grace,
            Output(self.logs, run, settings.output_limit),
            _paths("input", call.input, method.input), _paths("output", call.output, method.output),
        )  # fmt: skip

    def _profile(self, entry: ModuleEntry, method: MethodInfo) -> Profile:
        settings, limits = self.settings, method.limits
        memory, processes = limits.memory or settings.worker_memory, limits.processes or settings.worker_processes
        return Profile(memory, processes, limits.network and settings.allows_network(entry.name))

    def _record(
        self, call: Call, entry: ModuleEntry, task: Task, outcome: Outcome, times: tuple[datetime, datetime]
    ) -> Run:
        error = error_of(outcome)
        return Run(
            id=task.run, key=call.principal.key, session=call.session, module=entry.name, method=task.method,
            created_at=times[0], module_version=entry.version, params=call.params, input=call.input,
            output=call.output, status=outcome.status, started_at=times[1], ended_at=self.clock.now(),
            result=outcome.result if isinstance(outcome, Completed) else None,
            error=None if error is None else {"code": error.code, "message": error.message, "data": error.members()},
            log_bytes=task.output.kept + task.output.dropped, node=self.node,
        )  # fmt: skip

    # -- sessions that end, and the server's own end --------------------------------------------------------------

    def _enter(self, session: str) -> None:
        if self._stopping:
            raise Overloaded("the server is being stopped; try again", retry_after=1)
        self.sessions.enter(session)
        self._under_way[session] = self._under_way.get(session, 0) + 1

    def _leave(self, session: str) -> None:
        self.sessions.leave(session)
        left = self._under_way[session] - 1
        if left:
            self._under_way[session] = left
            return
        del self._under_way[session]
        for key in [key for key in self._exclusive if key[0] == session] if self._exclusive else ():
            del self._exclusive[key]
        if (drained := self._drained.pop(session, None)) is not None and not drained.done():
            drained.set_result(None)

    async def quiesce(self, session_id: str, wait: float) -> None:
        """Let the runs of a session end, cancel those that last longer than `wait` seconds, and end its workers."""
        await self._end_runs(session_id, wait, Cancelled("its session was closed"))
        await self.pool.forget(session_id)

    async def _end_runs(self, session: str, wait: float, outcome: Outcome) -> None:
        if session not in self._under_way:
            return
        drained = self._drained.setdefault(session, asyncio.get_running_loop().create_future())
        if await _within(wait, asyncio.shield(drained)):
            return
        self._ending[session] = outcome
        try:
            for worker in self.pool.busy_of(session):
                worker.end(outcome)
            await drained
        finally:
            self._ending.pop(session, None)

    async def stop(self, wait: float) -> None:
        """Take no more calls, let runs end for `wait` seconds, then interrupt the rest."""
        self._stopping = True
        sessions = list(self._under_way)
        await asyncio.gather(*(self._end_runs(session, wait, WasInterrupted()) for session in sessions))


async def _within(seconds: float, work: Awaitable[Any]) -> bool:
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        return False
    return True


def _paths(kind: str, given: JsonObject, declared: tuple[str, ...]) -> dict[str, str]:
    """Paths in the session directory by declared name. Each entry is `{"path": "a/b.csv"}`."""
    found = {}
    for name, entry in given.items():
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise InvalidParams.field([kind, name], f"is not declared by the method; declared: {known}", "unknown_name")
        path = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(path, str):
            raise InvalidParams.field([kind, name], 'must be an object like {"path": "table.csv"}', "object_type")
        parts = PurePosixPath(path)
        if not path or parts.is_absolute() or ".." in parts.parts or "\0" in path:
            raise InvalidParams.field([kind, name, "path"], "must be a relative path without `..`", "path")
        found[name] = path
    return found
