"""The engine of one machine: a keeper, a zygote for each module generation in use, and the workers they fork."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataproc.engine.confine import PLACES, READ_ONLY
from dataproc.engine.keeping import KeeperGoneError, KeeperProcess
from dataproc.engine.launch import Demand, Ground, Profile
from dataproc.engine.work import WorkFolders
from dataproc.engine.worker import Worker
from dataproc.engine.zygotes import ZygoteProcess
from dataproc.errors import ExecCrashed, StorageUnavailable
from dataproc.module import Generation, ModuleBroken
from dataproc.runs import Crashed
from dataproc.settings import MiB, Settings

FRAME_ROOM = 1 * MiB  # of a worker's frame beside the result: messages, traceback
LONGEST_PAUSE = 30.0  # seconds between tries to start a zygote that keeps dying


Folders = Callable[[], Awaitable[dict[str, Path]]]
ZygoteKey = tuple[Generation, bool]


class LocalEngine:
    """Starts workers and knows when they end. What is warm, and who waits, is the pool's."""

    def __init__(self, settings: Settings, node: str) -> None:
        self.settings, self.node = settings, node
        self.layers: tuple[str, ...] = ()
        self.missing = ""  # why there are no namespaces
        self.workers: dict[int, Worker] = {}
        self.on_company: Callable[[Worker], None] = lambda worker: None
        self._demands: dict[int, Demand] = {}
        self._zygotes: dict[ZygoteKey, ZygoteProcess] = {}
        self._starting: dict[ZygoteKey, asyncio.Task[ZygoteProcess]] = {}
        self._failures: dict[ZygoteKey, tuple[int, float]] = {}
        self._numbers = itertools.count(1)
        self._no_fork: set[str] = set()
        self._keeper: KeeperProcess | None = None
        self._keeping = asyncio.Lock()
        self._work = WorkFolders(settings.node_dir / "work" / node)
        walled = settings.sandbox != "off"
        uid = settings.worker_uid if os.geteuid() == 0 and walled else None  # off: as the server
        self.ground = Ground(settings, namespaces=walled, uid=uid)

    # -- the keeper ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the keeper and try the walls by a worker that does nothing; settle for those that stand."""
        await asyncio.to_thread(self._work.sweep)
        keeper = await self._kept()
        if self.ground.namespaces and not keeper.namespaces:
            self._do_without(keeper.why)
        try:
            self.layers = await self._try_walls()
        except (OSError, ExecCrashed) as error:
            if not self.ground.namespaces:
                raise
            self._do_without(str(error))
            await self._drop_keeper()
            self._failures.clear()
            self.layers = await self._try_walls()

    def _do_without(self, why: str) -> None:
        self.ground, self.missing = replace(self.ground, namespaces=False), why

    async def _try_walls(self) -> tuple[str, ...]:
        nothing = Generation("none", "", "folder", "")
        profile = Profile(self.settings.worker_memory, self.settings.worker_processes)
        worker = await self.spawn(Demand(None, nothing, profile), _no_folders)
        layers = worker.layers
        worker.kill()
        await worker.gone
        await self.retire(nothing)
        return layers

    async def _kept(self) -> KeeperProcess:
        """The keeper; a new one if the last has gone."""
        async with self._keeping:
            if self._keeper is None:
                keeper = KeeperProcess(self._event)
                await keeper.start(namespaces=self.ground.namespaces)
                self._keeper = keeper
            return self._keeper

    async def _drop_keeper(self) -> None:
        if (keeper := self._keeper) is not None:
            self._keeper = None
            await keeper.stop()
            self._all_gone()

    def _event(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "zygote_exit":
                for key, zygote in list(self._zygotes.items()):
                    if zygote.number == event["id"]:
                        del self._zygotes[key]
                        zygote.ended(event["status"])
            case "memory" if (worker := self.workers.get(event["worker"])) is not None:
                worker.reason = (
                    f"its processes held {event['used']} bytes together, the limit is {event['limit']}"
                    " (`memory` of the method, DATAPROC_WORKER_MEMORY)"
                )
            case "company" if (worker := self.workers.get(event["worker"])) is not None:
                self.on_company(worker)
            case "gone":
                self._keeper = None
                self._all_gone()

    def _all_gone(self) -> None:
        for zygote in self._zygotes.values():
            zygote.ended(9)
        self._zygotes.clear()

    # -- zygotes ------------------------------------------------------------------------------------------------

    async def zygote(self, generation: Generation, *, network: bool) -> ZygoteProcess:
        """The running zygote of a generation, started at first need. ExecCrashed while one that keeps dying rests."""
        key = (generation, network)
        found = self._zygotes.get(key)
        if found is not None and found.alive:
            return found
        if (starting := self._starting.get(key)) is None:
            starting = self._starting[key] = asyncio.create_task(self._start_zygote(key))
            starting.add_done_callback(lambda _: self._starting.pop(key, None))
        return await asyncio.shield(starting)

    async def _start_zygote(self, key: ZygoteKey) -> ZygoteProcess:
        generation, network = key
        failures, again_at = self._failures.get(key, (0, 0.0))
        if time.monotonic() < again_at:
            wait = again_at - time.monotonic()
            raise ExecCrashed(
                f"the processes of module {generation.module} keep dying; the next start is in {wait:.0f} s",
                retry_after=round(wait, 1),
            )
        self._failures[key] = (failures + 1, time.monotonic() + min(2.0**failures / 4, LONGEST_PAUSE))
        zygote = await self._launch(generation, network)
        self._zygotes[key] = zygote
        return zygote

    async def _launch(self, generation: Generation, network: bool) -> ZygoteProcess:
        keeper = await self._kept()
        control, other = socket.socketpair()
        log, log_end = os.pipe()
        zygote = ZygoteProcess(next(self._numbers), control, log)
        zygote.kill_by = self._kill_zygote
        try:
            await keeper.ask(self.ground.zygote(zygote.number, generation, network), [other.fileno(), log_end])
        except OSError as error:
            zygote.ended(9)
            raise ExecCrashed(f"the process of module {generation.module} cannot be started: {error}") from error
        finally:
            other.close()
            os.close(log_end)
        zygote.tell(self.ground.configuration(generation, network, preload=self._preloads(generation)))
        return zygote

    def _preloads(self, generation: Generation) -> bool:
        return generation.fork and generation.digest not in self._no_fork and self.ground.preloads(generation)

    def _kill_zygote(self, number: int) -> None:
        if self._keeper is not None:
            with contextlib.suppress(KeeperGoneError):
                self._keeper.tell({"op": "kill", "id": number})

    async def describe(self, generation: Generation) -> dict[str, Any]:
        """What the module says of itself. Raises ModuleBroken with the reason where it cannot be imported."""
        timeout = self.settings.import_timeout
        try:
            if self._preloads(generation):
                zygote = await self.zygote(generation, network=False)
                told = await zygote.describe(timeout)
            else:
                told = await asyncio.wait_for(self._describe_alone(generation), timeout)
        except (ChildProcessError, TimeoutError) as error:
            raise ModuleBroken(str(error).strip() or f"its import did not end within {timeout:g} s") from error
        self._failures.pop((generation, False), None)
        if "broken" in told:
            await self.retire(generation)
            raise ModuleBroken(str(told["broken"]))
        description = dict(told["description"])
        if description.get("fork") is False and self._preloads(generation):
            self._no_fork.add(generation.digest)
            await self.retire(generation)
        return description

    async def _describe_alone(self, generation: Generation) -> dict[str, Any]:
        profile = Profile(self.settings.worker_memory, self.settings.worker_processes)
        worker = await self.spawn(Demand(None, generation, profile), _no_folders)
        try:
            return await worker.describe()
        finally:
            worker.kill()

    async def retire(self, generation: Generation) -> None:
        """End the zygotes of a generation and whatever runs below them."""
        for key in [key for key in self._zygotes if key[0] == generation]:
            zygote = self._zygotes[key]
            zygote.destroy()
            await zygote.gone

    def idle_zygotes(self) -> list[tuple[Generation, ZygoteProcess]]:
        """Zygotes without a worker."""
        return [(key[0], zygote) for key, zygote in self._zygotes.items() if not zygote.workers]

    def uses(self, generation: Generation) -> bool:
        """Whether anything of a generation still runs."""
        return any(key[0] == generation for key in self._zygotes)

    # -- workers ------------------------------------------------------------------------------------------------

    def place(self, name: str, path: Path) -> str:
        """Where a worker sees a folder of that name."""
        return PLACES[name] if self.ground.namespaces else str(path)

    async def spawn(self, demand: Demand, folders: Folders) -> Worker:
        """A worker that is ready. ExecCrashed where it does not come up, StorageUnavailable without its folders."""
        zygote = await self.zygote(demand.generation, network=demand.profile.network)
        number = next(self._numbers)
        paths = await folders() | {"work": self._work.path(number)}
        stream, other = socket.socketpair()
        log, log_end = os.pipe()
        trees: list[int] = []
        worker = Worker(number, zygote, stream, log, self.settings.result_limit + FRAME_ROOM)
        self.workers[number], self._demands[number] = worker, demand
        worker.gone.add_done_callback(lambda _: self._worker_gone(number))
        try:
            self._work.make(number, self.ground.uid)
            message = self.ground.worker(demand, paths)
            if self.ground.namespaces:
                keeper = await self._kept()
                shown = [[str(paths[name]), name in READ_ONLY] for name in message["trees"]]
                trees = await keeper.ask({"op": "mounts", "paths": shown})
            zygote.spawn(worker, message, [other.fileno(), log_end, *trees])
        except OSError as error:
            worker.ended(9)
            raise StorageUnavailable(f"the folders of a worker cannot be made: {error.strerror or error}") from error
        finally:
            for descriptor in (log_end, *trees):
                os.close(descriptor)
            other.close()
        return await self._come_up(worker, demand)

    async def _come_up(self, worker: Worker, demand: Demand) -> Worker:
        try:
            pid = await asyncio.wait_for(asyncio.shield(worker.ready), self.settings.import_timeout)
        except (ChildProcessError, TimeoutError) as error:
            worker.end(Crashed(reason="it did not come up"), at_once=True)
            words = worker.owner.last_words[-2000:] if isinstance(worker.owner, ZygoteProcess) else ""
            text = f"a process for module {demand.generation.module} did not come up: {worker.reason or error}"
            raise ExecCrashed(text, **({"output": words} if words else {})) from error
        self._failures.pop((demand.generation, demand.profile.network), None)
        if self.ground.namespaces and self._keeper is not None:
            with contextlib.suppress(OSError):
                inode = os.stat(f"/proc/{pid}/ns/pid").st_ino
                watch = {"op": "watch", "worker": worker.number, "pid_namespace": inode}
                self._keeper.tell({**watch, "memory": demand.profile.memory})
        return worker

    def _worker_gone(self, number: int) -> None:
        self.workers.pop(number, None)
        self._demands.pop(number, None)
        if self._keeper is not None:
            with contextlib.suppress(KeeperGoneError):
                self._keeper.tell({"op": "unwatch", "worker": number})
        self._work.discard(number)

    def demand_of(self, worker: Worker) -> Demand:
        """Whose a worker is."""
        return self._demands[worker.number]

    async def stop(self) -> None:
        """End every process, and wait until they are gone."""
        await self._drop_keeper()
        await asyncio.to_thread(self._work.close)


async def _no_folders() -> dict[str, Path]:
    return {}
