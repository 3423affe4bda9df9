"""`build(settings)`: the one place where implementations are chosen and joined."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from filelock import BaseFileLock, FileLock, Timeout

from dataproc.access import Authenticator, Keys
from dataproc.catalogue import Catalogue
from dataproc.clock import Clock, SystemClock
from dataproc.database import Database
from dataproc.database.cancels import Cancels
from dataproc.database.idempotency import IdempotencyKeys
from dataproc.database.leases import DatabaseLeases
from dataproc.database.nodes import Nodes
from dataproc.database.runs import RunStore
from dataproc.database.usage import DatabaseUsages
from dataproc.engine.doctor import settle
from dataproc.engine.local import LocalEngine
from dataproc.engine.pool import WorkerPool
from dataproc.executor import Executor
from dataproc.ledger import Ledger
from dataproc.reaper import Reaper
from dataproc.recovery import Recovery
from dataproc.registry import Registry
from dataproc.scripts import Scripts
from dataproc.sessions import Sessions
from dataproc.settings import Settings
from dataproc.storage import Workspaces, open_workspaces
from dataproc.telemetry import METRICS

MOST_NODES = 64  # servers of one machine on one node folder
log = structlog.get_logger(__name__)


@dataclass
class System:
    """Everything that a request may need, joined. `start` before the first, `stop` after the last."""

    settings: Settings
    clock: Clock
    database: Database
    keys: Keys
    authenticator: Authenticator
    sessions: Sessions
    workspaces: Workspaces
    catalogue: Catalogue
    runs: RunStore
    engine: LocalEngine
    registry: Registry
    pool: WorkerPool
    executor: Executor
    ledger: Ledger
    recovery: Recovery
    reaper: Reaper
    node: Node
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Clean up after an earlier life, put up the walls, and begin to work."""
        await self.workspaces.sweep()
        self.executor.scripts.sweep()
        await self.engine.start()
        settle(self.settings, self.engine)
        await self.registry.start()
        await self.reaper.start()
        interrupted = await self.recovery.start()
        self._tasks = [asyncio.create_task(self.pool.keep_house()), asyncio.create_task(self.workspaces.quotas.keep())]
        log.info("server.started", node=self.node.name, layers=list(self.engine.layers), interrupted_runs=interrupted)

    async def stop(self) -> None:
        """Let runs end for the close wait, then end every process and write down what is left to write."""
        self.workspaces.hurry(self.settings.close_wait)
        await self.executor.stop(self.settings.close_wait)
        await self.recovery.stop()
        await self.reaper.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.registry.stop()
        await self.engine.stop()
        await self.workspaces.close()
        await self.database.close()
        self.node.leave()


@dataclass(frozen=True, slots=True)
class Node:
    """This server among those of its machine: a name that is its own while it lives, and is taken up again."""

    name: str
    lock: BaseFileLock

    @classmethod
    def take(cls, folder: Path) -> Node:
        """The first free name. Servers with node folders of their own have names of their own, on one machine too."""
        (folder / "nodes").mkdir(parents=True, exist_ok=True, mode=0o700)
        place = _place_of(folder / "nodes" / "id")
        for number in range(MOST_NODES):
            lock = FileLock(folder / "nodes" / f"{number}.lock", timeout=0)
            with contextlib.suppress(Timeout):
                lock.acquire()
                return cls(f"{socket.gethostname()}-{place}-{number}", lock)
        raise RuntimeError(f"{MOST_NODES} servers use {folder} already")

    def leave(self) -> None:
        """Give the name back."""
        self.lock.release()


def _place_of(file: Path) -> str:
    """The words of a node folder's own: made by whoever comes first."""
    with contextlib.suppress(FileExistsError):
        fresh = file.with_name(f"id-{os.getpid()}")
        fresh.write_text(os.urandom(4).hex())
        try:
            os.link(fresh, file)  # whole, and once
        finally:
            fresh.unlink()
    return file.read_text()


async def build(settings: Settings) -> System:
    """A system on these settings, not yet started."""
    clock = SystemClock()
    node = Node.take(settings.node_dir)
    database = await Database.open(settings.database, clock, fsync=settings.fsync)
    sessions = Sessions(database, settings, node.name)
    leases = None if settings.local_storage else DatabaseLeases(database, settings.lease, node.name, settings.node_url)
    workspaces = open_workspaces(settings, clock, leases, node.name, DatabaseUsages(database))
    runs = RunStore(database)
    engine = LocalEngine(settings, node.name)
    pool = WorkerPool(engine, settings)
    registry = Registry(settings, engine.describe, clock)

    catalogue = Catalogue(database, settings, workspaces.folders.root)
    scripts = Scripts(catalogue, workspaces, node.name, engine.place)
    registry.on_retired(pool.retire)
    workspaces.on_left(pool.forget)
    executor = Executor(settings, clock, registry, sessions, workspaces, pool, runs, scripts, node.name)
    workspaces.quotas.on_over = executor.exceeded
    workspaces.quotas.processes = lambda session: [worker.pid for worker in pool.busy_of(session)]
    workspaces.quotas.workers = lambda session: [worker.pid for worker in pool.all_of(session)]
    reaper = Reaper(sessions, runs, executor, workspaces, settings, METRICS)
    keys = IdempotencyKeys(database, settings.idempotency_retention)
    cancels = Cancels(database)
    ledger = Ledger(executor, runs, keys, cancels)
    ledger.close_session = lambda session: reaper.end(session, "closed")
    return System(
        settings=settings,
        clock=clock,
        database=database,
        keys=Keys(database),
        authenticator=Authenticator(database, settings),
        sessions=sessions,
        workspaces=workspaces,
        catalogue=catalogue,
        runs=runs,
        engine=engine,
        registry=registry,
        pool=pool,
        executor=executor,
        ledger=ledger,
        recovery=Recovery(executor, ledger, runs, keys, cancels, Nodes(database)),
        reaper=reaper,
        node=node,
    )
