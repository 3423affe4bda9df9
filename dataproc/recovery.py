"""Runs that a server left behind: judged, or taken up again; and what is kept of runs for a time only."""

from __future__ import annotations

import asyncio

import structlog

from dataproc.access.scopes import EXEC
from dataproc.database.cancels import Cancels
from dataproc.database.idempotency import IdempotencyKeys
from dataproc.database.nodes import Nodes
from dataproc.database.runs import RunStore
from dataproc.errors import DataprocError, StorageUnavailable
from dataproc.executor import Call, Executor
from dataproc.ledger import Ledger
from dataproc.runs import Failed, Run, RunStatus, told_of
from dataproc.tasks import task_of
from dataproc.types import Principal

BEAT = 5.0  # seconds between signs of life
HEARD = 1.0  # seconds between looks for runs that other servers were asked to cancel
SILENCE = 30.0  # seconds after which a server that is not heard counts as dead
UPKEEP = 600.0  # seconds between two looks for old logs and keys
FORGOTTEN = 1000  # keys deleted in one transaction
log = structlog.get_logger(__name__)


class Recovery:
    """Takes up what an earlier life of this server, or a dead server, left; and deletes old keys and logs."""

    def __init__(
        self, executor: Executor, ledger: Ledger, runs: RunStore, keys: IdempotencyKeys, cancels: Cancels, nodes: Nodes
    ) -> None:
        self._executor, self._ledger, self._runs = executor, ledger, runs
        self._keys, self._cancels, self._nodes = keys, cancels, nodes
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> int:
        """Judge and take up what an earlier life of this server, or a dead one, left; returns how many it judged."""
        judged = await self._take_over(self._executor.node)
        for run_id, session in await self._runs.to_close(self._executor.node):
            await self._ledger.close_after(run_id, session)
        self._loops = [asyncio.create_task(each) for each in (self._beat(), self._listen(), self._upkeep())]
        return judged

    async def stop(self) -> None:
        """After the executor's stop: leave nothing running here."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._ledger.settle()
        try:
            await self._nodes.leave(self._executor.node)
        except StorageUnavailable as error:
            log.warning("node_not_left", exc_info=error)

    async def _take_over(self, node: str | None = None) -> int:
        """Those of dead servers, and at the start what this one left itself."""
        await self._nodes.beat(self._executor.node)
        others = await self._runs.unfinished_nodes() - {self._executor.node}
        left = await self._nodes.dead(others, SILENCE) | ({node} if node else set())
        broken = []
        for run in await self._runs.left_by(left) if left else ():
            if not run.submitted or not await self._may_run(run):
                broken.append(run)
            elif (mine := await self._runs.adopt(run, self._executor.node, _attempt(run))) is not None:
                await self._resume(mine)
        judged = await self._runs.interrupt(broken) if broken else []
        for run in judged:
            if run.closes:
                await self._ledger.close_after(run.id, run.session)
        return len(judged)

    async def _may_run(self, run: Run) -> bool:
        if run.status is RunStatus.QUEUED:
            return True
        try:
            entry = await self._executor.registry.resolve(run.module)
            return run.attempt <= entry.method(run.method).retries
        except DataprocError:
            return False

    async def _resume(self, run: Run) -> None:
        """Have a submitted run of an earlier life run now."""
        caller = Principal(run.key, "key", frozenset({EXEC}), session=run.session)
        call = Call(
            caller, run.session, run.module, run.method, run.params, run.input, run.output, run.timeout,
            run.request_id, run.id,
        )  # fmt: skip
        try:
            await self._executor.sessions.live(run.session)
            entry, method = await self._executor.plan(call)
            live = self._executor.begin(call, entry, method)
        except DataprocError as error:
            ended = run.evolve(Failed.status, ended_at=self._executor.clock.now(), error=told_of(error))
            await self._runs.finish(ended)
            return
        live.created, live.closes, live.attempt = run.created_at, run.closes, run.attempt
        live.recorded = live.submitted = True
        live.task = task_of(self._executor.settings, live)
        self._ledger.spawn(live)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            try:
                await self._take_over()
            except Exception as error:
                log.warning("take_over_failed", exc_info=error)

    async def _listen(self) -> None:
        while True:
            await asyncio.sleep(HEARD)
            try:
                asked = await self._cancels.asked_of(self._executor.node)
                if ending := [run_id for run_id in asked if self._executor.cancel(run_id)]:
                    await self._cancels.done(ending)
            except Exception as error:
                log.warning("cancels_not_heard", exc_info=error)

    async def _upkeep(self) -> None:
        while True:
            try:
                await self._cancels.forget()
                while await self._keys.forget(FORGOTTEN) >= FORGOTTEN:
                    pass
                await asyncio.to_thread(self._executor.folder.forget, self._executor.settings.log_retention)
            except Exception as error:
                log.warning("upkeep_failed", exc_info=error)
            await asyncio.sleep(UPKEEP)


def _attempt(run: Run) -> int:
    return run.attempt if run.status is RunStatus.QUEUED else run.attempt + 1
