"""The warm set: workers that have served a session before, leased newest first, ended oldest first."""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict, defaultdict

from dataproc.engine.bounds import tree_memory
from dataproc.engine.launch import Demand
from dataproc.engine.local import Folders, LocalEngine
from dataproc.engine.ticker import Ticker
from dataproc.engine.worker import Worker
from dataproc.module.generation import Generation
from dataproc.settings import Settings

HOUSEKEEPING = 2.0  # seconds between looks at idle workers
COMPANY_PATIENCE = 1.0  # seconds that an idle worker may have other processes beside it
LIMITS = 0.05  # seconds between looks for runs whose time is over
STOP_PATIENCE = 5.0  # seconds for killed workers to be gone


class WorkerPool:
    """Leases workers. One worker serves one call at a time; a parallel call gets another."""

    def __init__(self, engine: LocalEngine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self._idle: dict[Demand, list[Worker]] = defaultdict(list)
        self._by_age: OrderedDict[Worker, Demand] = OrderedDict()  # the same idle workers, oldest first
        self._busy: dict[Worker, Demand] = {}
        self._retired: set[Generation] = set()
        self._limits = Ticker(LIMITS, self._end_late)
        engine.on_company = self._company

    @property
    def counts(self) -> dict[str, int]:
        """Workers by state."""
        return {"busy": len(self._busy), "idle": len(self._by_age)}

    async def lease(self, demand: Demand, folders: Folders) -> Worker:
        """A worker for one run: a warm one of the same session, module and profile, or a new one."""
        self._limits.wake()
        idle = self._idle.get(demand)
        while idle:
            worker = idle.pop()
            del self._by_age[worker]
            if worker.alive:
                self._busy[worker] = demand
                return worker
        worker = await self.engine.spawn(demand, folders)
        self._limits.wake()
        self._busy[worker] = demand
        return worker

    def _end_late(self) -> bool:
        now = asyncio.get_running_loop().time()
        for worker in [worker for worker in self._busy if worker.due <= now]:
            worker.time_out()
        return bool(self._busy)

    def release(self, worker: Worker) -> None:
        """Take a worker back: keep it warm if it is well and still of use, else end it."""
        demand = self._busy.pop(worker)
        if not worker.alive or demand.generation in self._retired or not self.settings.warm_workers:
            worker.kill()
            return
        worker.idle_since = time.monotonic()
        self._idle[demand].append(worker)
        self._by_age[worker] = demand
        if len(self._by_age) > self.settings.warm_workers:
            self._end_oldest()

    async def forget(self, session: str) -> None:
        """End every worker of a session, and wait until they are gone."""
        await self._end_all(self.all_of(session))

    async def retire(self, generation: Generation) -> None:
        """End the idle workers of a generation; those with a run end after it, and the zygote when it has none."""
        self._retired.add(generation)
        await self._end_all([worker for worker, demand in self._by_age.items() if demand.generation == generation])

    def busy_of(self, session: str) -> list[Worker]:
        """Workers that run something for a session."""
        return [worker for worker, demand in self._busy.items() if demand.session == session]

    def all_of(self, session: str) -> list[Worker]:
        """Its idle workers, too."""
        return [w for w, d in [*self._by_age.items(), *self._busy.items()] if d.session == session]

    async def _end_all(self, workers: list[Worker]) -> None:
        for worker in workers:
            self._drop(worker)
        if workers:
            await asyncio.wait([worker.gone for worker in workers], timeout=STOP_PATIENCE)

    def _drop(self, worker: Worker) -> None:
        if (demand := self._by_age.pop(worker, None)) is not None:
            self._idle[demand].remove(worker)
            if not self._idle[demand]:
                del self._idle[demand]
        worker.kill()

    def _end_oldest(self) -> None:
        self._drop(next(iter(self._by_age)))

    def _company(self, worker: Worker) -> None:
        """An idle worker with processes beside it has got round the end of its run."""
        if worker in self._by_age and time.monotonic() - worker.idle_since > COMPANY_PATIENCE:
            self._drop(worker)

    async def keep_house(self) -> None:
        """Until cancelled: end workers that are idle for too long, or hold too much together, and unused zygotes."""
        while True:
            await asyncio.sleep(HOUSEKEEPING)
            now, life = time.monotonic(), self.settings.warm_life
            for worker in list(self._by_age):
                if not worker.alive or now - worker.idle_since > life:
                    self._drop(worker)
            bound = self.settings.warm_memory * machine_memory()
            while self._by_age and tree_memory(worker.pid for worker in self._by_age) > bound:
                self._end_oldest()
            for generation, zygote in self.engine.idle_zygotes():
                if generation in self._retired or now - zygote.idle_since > life:
                    zygote.destroy()
            self._retired -= {one for one in self._retired if not self.engine.uses(one)}


def machine_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
