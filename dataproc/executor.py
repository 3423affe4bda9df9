"""The one way that every call takes: from names to a finished run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from dataproc import run_changes
from dataproc.access.scopes import require_exec
from dataproc.admission import Admission
from dataproc.clock import Clock
from dataproc.database.runs import RunStore
from dataproc.engine.launch import Demand
from dataproc.engine.pool import WorkerPool
from dataproc.engine.ticker import Ticker
from dataproc.engine.worker import Worker
from dataproc.errors import (
    DataprocError,
    ExecCrashed,
    InternalError,
    Overloaded,
    QuotaExceeded,
    StorageUnavailable,
)
from dataproc.events import Folder
from dataproc.registry import MethodInfo, ModuleEntry, Registry
from dataproc.runs import Cancelled, Completed, Crashed, Failed, Outcome, Run, WasInterrupted, error_of
from dataproc.scripts import Asked, Scripts
from dataproc.sessions import Sessions
from dataproc.settings import Settings
from dataproc.storage import Tree, Workspaces
from dataproc.storage.changes import Touched
from dataproc.storage.manifest import Late
from dataproc.tasks import profile_of, task_of
from dataproc.telemetry import METRICS
from dataproc.types import JsonObject
from dataproc.under_way import Call as Call
from dataproc.under_way import UnderWay

PATIENCE = (0.1, 0.5, 1, 2, 5, 10)  # seconds between tries to put down that a submitted run begins
NOTED = 0.125  # seconds, once or twice, after which a run that somebody waits for is on record, to be seen by others
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, and how."""

    run: str  # its id
    session: str
    outcome: Outcome


class Executor:
    """Joins the other rooms for one call."""

    def __init__(
        self, settings: Settings, clock: Clock, registry: Registry, sessions: Sessions, workspaces: Workspaces,
        pool: WorkerPool, runs: RunStore, scripts: Scripts, node: str,
    ) -> None:  # fmt: skip
        self.settings, self.clock, self.node = settings, clock, node
        self.registry, self.sessions, self.workspaces = registry, sessions, workspaces
        self.pool, self.runs, self.scripts = pool, runs, scripts
        self.admission = Admission(settings)
        self.folder = Folder((settings.local_storage or settings.node_dir) / "runs")
        self.live: dict[str, UnderWay] = {}
        self._sessions: dict[str, set[UnderWay]] = {}
        self._drained: dict[str, asyncio.Future[None]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._looks = run_changes.Looks(self._hash_late)
        self._noting = Ticker(NOTED, self._note_slow)
        self.stopping = False

    async def execute(self, call: Call) -> Ended:
        """Run one call. Raises DataprocError where no run began; whatever becomes of a run is its outcome."""
        return await self.run(self.begin(call, *await self.plan(call)))

    async def plan(self, call: Call) -> tuple[ModuleEntry, MethodInfo]:
        """What the call names. Raises DataprocError where it may not run, or not so."""
        entry = await self.registry.resolve(call.module)
        method = entry.method(call.method)
        require_exec(call.principal, entry.name, method.name)
        method.check(call.params)
        if method.script is not None:
            await self.scripts.check(method, _asked(call, entry))
        return entry, method

    def begin(self, call: Call, entry: ModuleEntry, method: MethodInfo) -> UnderWay:
        """A run that is under way from now on; `run` or `drop` has to follow. Raises Overloaded, InvalidParams."""
        if self.stopping:
            raise Overloaded("the server is being stopped; try again", retry_after=1)
        live = UnderWay(call, entry, method, self.clock.now(), self.folder)
        live.node, live.give_up = self.node, self.admission.give_up
        live.task = task_of(self.settings, live)
        self.sessions.refuse_if_draining()
        self.sessions.enter(call.session)
        self.live[call.run_id] = live
        self._noting.wake()
        self._sessions.setdefault(call.session, set()).add(live)
        call.begun()
        return live

    async def run(self, live: UnderWay) -> Ended:
        """See a run to its end and to its record. Raises DataprocError where one without a record did not begin."""
        try:
            try:
                outcome = await self._admitted(live)
            except DataprocError as error:
                if not live.recorded:
                    raise
                outcome, live.refused = Failed(error), live.started is None
            except Exception as fault:
                if not live.recorded:
                    raise
                log.error("run_failed", run_id=live.call.run_id, request_id=live.call.request_id, exc_info=fault)
                outcome = Failed(InternalError("the server failed; its log has the cause under the run's id"))
            return await self._over(live, outcome)
        finally:
            self.drop(live)

    async def _admitted(self, live: UnderWay) -> Outcome:
        call, admission = live.call, self.admission
        alone = live.method.exclusive
        place = admission.enter(call.principal.key, call.session, alone=alone, promised=live.recorded)
        live.place = place
        begun = self.clock.monotonic()
        if place.turn is not None and not await admission.wait(place):
            assert live.ending is not None
            return live.ending
        ticks = self.clock.monotonic()
        METRICS.queue_wait(ticks - begun)
        try:
            while True:
                outcome = await self._once(live)
                if type(outcome) is not Crashed or live.attempt > live.method.retries or live.ending is not None:
                    return outcome
                live.again()
                live.task = task_of(self.settings, live)
        finally:
            admission.leave(place, self.clock.monotonic() - ticks)

    async def _once(self, live: UnderWay) -> Outcome:
        """Check the workspace out and a worker; leaving commits the files."""
        if live.ending is not None:
            return live.ending
        live.started = self.clock.now()
        if live.submitted:
            await self._put_begun(live)
        live.tell()
        demand = Demand(live.call.session, live.entry.generation, profile_of(self.settings, live))
        async with self.workspaces.of(live.call.session).checkout((live.call.principal.key, live.entry.name)) as tree:
            if live.method.script is not None:
                command = partial(self._command, live, demand, tree)
                return await self.scripts.run(live.method, _asked(live.call, live.entry), tree, command)
            return await self._leased(live, demand, tree)

    async def _put_begun(self, live: UnderWay) -> None:
        """Have it on record that a submitted run begins, or a crash would have it run a second time."""
        for pause in PATIENCE:
            try:
                await self.runs.begin(live.as_run())
                return
            except StorageUnavailable:
                log.warning("run_waits_for_database", run_id=live.call.run_id)
                await asyncio.sleep(pause)
        await self.runs.begin(live.as_run())

    async def _command(
        self, live: UnderWay, demand: Demand, tree: Tree, order: JsonObject, places: dict[str, str]
    ) -> Outcome:
        live.task = replace(live.task, params=order, inputs=places)
        return await self._leased(live, demand, tree)

    async def _leased(self, live: UnderWay, demand: Demand, tree: Tree) -> Outcome:
        async with await self.workspaces.observe(live.call.session, live.call.principal.key, tree) as seen:
            try:
                worker = await self.pool.lease(demand, lambda: self._folders(live.call, live.entry, tree))
            except ExecCrashed as error:
                return Crashed(reason=error.message)
            try:
                outcome = await self._on_worker(worker, live)
            finally:
                self.pool.release(worker)
            changes, exceeded = await seen.end()
        live.touched = Touched(tree.files, changes, self.pool.engine.ground.uid)
        if live.recorded or not live.touched.few:
            await run_changes.keep(live)
        return outcome if exceeded is None or type(outcome) is Failed else Failed(exceeded)

    async def _on_worker(self, worker: Worker, live: UnderWay) -> Outcome:
        if live.ending is not None:
            return live.ending
        live.worker = worker
        if len(beside := self._sessions[live.call.session]) > 1:
            run_changes.mark_shared(beside)
        try:
            return await worker.run(live.task)
        finally:
            live.worker, live.usage = None, worker.usage

    async def _over(self, live: UnderWay, outcome: Outcome) -> Ended:
        """Write down how it ended, then tell."""
        live.outcome, live.ended = outcome, self.clock.now()
        took = 0.0 if live.started is None else (live.ended - live.started).total_seconds()
        METRICS.run(live.entry.name, live.method.name, outcome.status.value, max(0.0, took))
        if type(outcome) is not Completed:
            _log_end(live, outcome, took)
        if not self._shelved(live, outcome):
            await self._put_over(live, outcome)
        return Ended(live.call.run_id, live.call.session, outcome)

    async def _put_over(self, live: UnderWay, outcome: Outcome) -> None:
        if type(outcome) is Completed and not live.recorded:
            self.runs.behind(self._looks.draft(live))
        else:
            if live.touched is not None and live.changes is None:
                await run_changes.keep(live)
            await self._finish(live.as_run())  # its id is told, or about to be
        live.tell()
        if live.late is not None:
            self._hash_late(live.call.run_id, live.late)

    def _hash_late(self, run_id: str, late: Late) -> None:
        if not self.stopping:
            self._chore(run_changes.hash_them(run_id, late, self.runs, self.workspaces.hashing))

    def _shelved(self, live: UnderWay, outcome: Outcome) -> bool:
        """Whether its record stays as it is, so that the next start of a server takes it up."""
        waits = live.started is None or live.attempt <= live.method.retries
        live.shelved = type(outcome) is WasInterrupted and live.submitted and waits
        return live.shelved

    async def _finish(self, run: Run) -> None:
        try:
            await self.runs.finish(run)
        except StorageUnavailable:
            log.error("record_late", run_id=run.id)  # the run is over whether or not that can be written down now
            self.runs.finish_late(run)

    def _note_slow(self) -> bool:
        """Put runs on record that somebody waits for, because they take their time."""
        before = self.clock.now() - timedelta(seconds=NOTED)
        for live in self.live.values():
            if not live.recorded and live.created <= before:
                live.recorded = True
                self._chore(self._record(live.as_run()))
        return bool(self.live)

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _record(self, run: Run) -> None:
        try:
            await self.runs.record(run)
        except StorageUnavailable as error:
            log.warning("record_missing", run_id=run.id, exc_info=error)  # its end will be on record

    async def _folders(self, call: Call, entry: ModuleEntry, tree: Tree) -> dict[str, Path]:
        application = await self.workspaces.application(call.principal.key, entry.name)
        own = self.scripts.folders(tree, entry.name) if entry.generation.kind == "script" else {}
        return {"session": tree.files, "locks": tree.locks, "application": application, **own}

    def cancel(self, run_id: str) -> bool:
        """Begin to end a run for its caller; False where it is not under way here."""
        if (live := self.live.get(run_id)) is None:
            return False
        live.end(Cancelled("cancelled by its caller"))
        return True

    # -- sessions that end, and the server's own end --------------------------------------------------------------

    def drop(self, live: UnderWay) -> None:
        """A run is no longer under way."""
        session = live.call.session
        self.sessions.leave(session)
        del self.live[live.call.run_id]
        live.over()
        beside = self._sessions[session]
        beside.discard(live)
        if beside:
            return
        del self._sessions[session]
        if (drained := self._drained.pop(session, None)) is not None and not drained.done():
            drained.set_result(None)

    @property
    def calling(self) -> bool:
        """Whether runs are under way, or were a moment ago."""
        return self._noting.awake

    async def quiesce(self, session_id: str, wait: float) -> None:
        """Let the runs of a session end, cancel those that last longer than `wait` seconds, and end its workers."""
        await self._end_runs(session_id, wait, Cancelled("its session was closed"))
        await self.pool.forget(session_id)

    def exceeded(self, session_id: str, error: QuotaExceeded) -> None:
        """End the runs of a session that takes too much, at once; where it has none, an idle worker goes on writing."""
        for live in list(self._sessions.get(session_id, ())):
            live.end(Failed(error), at_once=True)
        if session_id not in self._sessions:
            self._forgetting = asyncio.get_running_loop().create_task(self.pool.forget(session_id))

    async def _end_runs(self, session: str, wait: float, outcome: Outcome) -> None:
        if session not in self._sessions:
            return
        drained = self._drained.setdefault(session, asyncio.get_running_loop().create_future())
        if await _within(wait, asyncio.shield(drained)):
            return
        for live in list(self._sessions.get(session, ())):
            live.end(outcome)
        await drained

    async def stop(self, wait: float) -> None:
        """Take no more calls, let runs end for `wait` seconds, then interrupt the rest. Submitted ones stay queued."""
        self.stopping = True
        ends = self.clock.monotonic() + wait
        for live in list(self.live.values()):
            if live.submitted and live.started is None:
                live.end(WasInterrupted())
        sessions = list(self._sessions)
        await asyncio.gather(*(self._end_runs(session, wait, WasInterrupted()) for session in sessions))
        if self._chores:
            _, late = await asyncio.wait(self._chores, timeout=max(1.0, ends - self.clock.monotonic()))
            for chore in late:
                chore.cancel()


def _log_end(live: UnderWay, outcome: Outcome, took: float) -> None:
    """A line for the operator; what a method raised is its caller's, and told to nobody else but by its type."""
    call, error = live.call, error_of(outcome)
    tell = log.info if type(outcome) in (Failed, Cancelled) else log.warning
    tell(
        "run_ended", status=outcome.status.value, run_id=call.run_id, request_id=call.request_id,
        session_id=call.session, key=call.principal.key, module=live.entry.name, method=live.method.name,
        seconds=round(took, 3), error=error and error.name, type=error and error.data.get("type"),
    )  # fmt: skip


def _asked(call: Call, entry: ModuleEntry) -> Asked:
    return Asked(call.principal, call.session, call.run_id, entry.name, call.params, call.input, call.output)


async def _within(seconds: float, work: Awaitable[Any]) -> bool:
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        return False
    return True
