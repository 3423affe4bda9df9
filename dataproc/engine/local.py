"""The engine of one machine: a keeper, a zygote for each module generation in use, and the workers they fork."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataproc.engine import landlock, seccomp, view
from dataproc.engine.bounds import Limits
from dataproc.engine.confine import PLACES, Walls
from dataproc.engine.keeping import KeeperGoneError, KeeperProcess
from dataproc.engine.worker import Worker
from dataproc.engine.zygotes import ZygoteProcess
from dataproc.errors import ExecCrashed, StorageUnavailable
from dataproc.module import Generation, ModuleBroken
from dataproc.settings import MiB, Settings

BOOT = f"import sys; sys.path.insert(0, {view.LIBRARY!r}); from dataproc.engine.zygote import main; main()"
BARE_BOOT = "from dataproc.engine.zygote import main; main()"
HOMES = ("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME")  # all are the work directory
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "MPLBACKEND": "agg"}
FRAME_ROOM = 1 * MiB  # of a worker's frame beside the result: messages, traceback
LONGEST_PAUSE = 30.0  # seconds between tries to start a zygote that keeps dying


@dataclass(frozen=True, slots=True)
class Profile:
    """What a worker may use; one worker has one profile, since confinement can only be tightened."""

    memory: int
    processes: int
    network: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """Whose worker: a session (None to describe a module), a module's generation, a profile."""

    session: str | None
    generation: Generation
    profile: Profile


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
        self._cleaning: set[asyncio.Task[None]] = set()
        self.namespaces = settings.sandbox != "off"
        self.uid = settings.worker_uid if os.geteuid() == 0 and self.namespaces else None  # off: as the server

    # -- the keeper ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the keeper and try the walls by a worker that does nothing; settle for those that stand."""
        self._work = self.settings.node_dir / "work" / self.node
        await asyncio.to_thread(shutil.rmtree, self._work, ignore_errors=True)
        self._work.mkdir(parents=True, exist_ok=True)
        keeper = await self._kept()
        if self.namespaces and not keeper.namespaces:
            self.namespaces, self.missing = False, keeper.why
        try:
            self.layers = await self._try_walls()
        except (OSError, ExecCrashed) as error:
            if not self.namespaces:
                raise
            self.namespaces, self.missing = False, str(error)
            await self._drop_keeper()
            self.layers = await self._try_walls()

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
                await keeper.start(namespaces=self.namespaces)
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
        shown = self._view(generation, network)
        message = {
            "op": "zygote", "id": zygote.number, "env": ENVIRONMENT | dict.fromkeys(HOMES, PLACES["work"] if self.namespaces else tempfile.gettempdir()), "uid": self.uid, "network": network,
            "argv": [shown.executable, "-I", "-c", BOOT if self.namespaces else BARE_BOOT],
            "binds": shown.binds, "links": shown.links, "texts": shown.texts, "tmp": self.settings.worker_tmp,
        }  # fmt: skip
        try:
            await keeper.ask(message, [other.fileno(), log_end])
        except OSError as error:
            zygote.ended(9)
            raise ExecCrashed(f"the process of module {generation.module} cannot be started: {error}") from error
        finally:
            other.close()
            os.close(log_end)
        zygote.tell(self._configuration(generation, network))
        return zygote

    def _view(self, generation: Generation, network: bool) -> view.View:
        interpreter = generation.interpreter or view.default_interpreter()
        if not self.namespaces:
            return view.View([], executable=interpreter)
        code = Path(generation.location) if generation.kind == "folder" and generation.location else None
        uid = self.uid if self.uid is not None else os.geteuid()
        return view.system_view(code=code, interpreter=interpreter, uid=uid, network=network)

    def _configuration(self, generation: Generation, network: bool) -> dict[str, Any]:
        on = self.settings.sandbox != "off"
        location = generation.location
        if generation.kind == "folder" and self.namespaces:
            location = "/module"
        read = () if self.namespaces else (str(Path(__file__).parent.parent), location)
        walls = Walls(
            self.namespaces, on and landlock.abi() >= landlock.OLDEST, on and seccomp.available(), network,
            self.settings.worker_tmp, read,
        )  # fmt: skip
        source = {"kind": generation.kind, "location": location, "name": generation.module}
        preload = self.preloads(generation)
        known = source if generation.location else None
        return {"module": known, "preload": preload, "spares": 1 if preload else 0, "walls": asdict(walls)}

    def preloads(self, generation: Generation) -> bool:
        """Whether its zygote imports the module: not for modules that cannot be forked, nor where only Landlock
        stands, which has to be in force before the first line of a module and then fits one session alone."""
        walled = self.namespaces or self.settings.sandbox == "off"
        return walled and generation.digest not in self._no_fork and bool(generation.location)

    def _kill_zygote(self, number: int) -> None:
        if self._keeper is not None:
            with contextlib.suppress(KeeperGoneError):
                self._keeper.tell({"op": "kill", "id": number})

    async def describe(self, generation: Generation) -> dict[str, Any]:
        """What the module says of itself. Raises ModuleBroken with the reason where it cannot be imported."""
        timeout = self.settings.import_timeout
        try:
            if self.preloads(generation):
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
        if description.get("fork") is False and self.preloads(generation):
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

    async def spawn(self, demand: Demand, folders: Folders) -> Worker:
        """A worker that is ready. ExecCrashed where it does not come up, StorageUnavailable without its folders."""
        zygote = await self.zygote(demand.generation, network=demand.profile.network)
        number = next(self._numbers)
        paths = await folders() | {"work": self._work / str(number)}
        stream, other = socket.socketpair()
        log, log_end = os.pipe()
        trees: list[int] = []
        worker = Worker(number, zygote, stream, log, self.settings.result_limit + FRAME_ROOM)
        self.workers[number], self._demands[number] = worker, demand
        worker.gone.add_done_callback(lambda _: self._worker_gone(number))
        try:
            self._make_work(paths["work"])
            message = self._spawn_message(demand, paths)
            if self.namespaces:
                keeper = await self._kept()
                trees = await keeper.ask({"op": "mounts", "paths": [str(paths[name]) for name in message["trees"]]})
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
            worker.kill()
            words = worker.owner.last_words[-2000:] if isinstance(worker.owner, ZygoteProcess) else ""
            text = f"a process for module {demand.generation.module} did not come up: {worker.reason or error}"
            raise ExecCrashed(text, **({"output": words} if words else {})) from error
        self._failures.pop((demand.generation, demand.profile.network), None)
        if self.namespaces and self._keeper is not None:
            with contextlib.suppress(OSError):
                inode = os.stat(f"/proc/{pid}/ns/pid").st_ino
                watch = {"op": "watch", "worker": worker.number, "pid_namespace": inode}
                self._keeper.tell({**watch, "memory": demand.profile.memory})
        return worker

    def _spawn_message(self, demand: Demand, paths: dict[str, Path]) -> dict[str, Any]:
        profile, settings = demand.profile, self.settings
        processes = profile.processes if self.namespaces else 2**20  # elsewhere the uid is shared with others
        limits = Limits(profile.memory, processes, settings.worker_open_files, settings.worker_file_size)
        return {
            "session": demand.session or "",
            "limits": asdict(limits),
            "trees": sorted(paths) if self.namespaces else [],
            "places": {name: PLACES[name] if self.namespaces else str(path) for name, path in paths.items()},
            "result_limit": settings.result_limit, "result_max": settings.result_max,
        }  # fmt: skip

    def _make_work(self, path: Path) -> None:
        path.mkdir(mode=0o700)
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)

    def _worker_gone(self, number: int) -> None:
        self.workers.pop(number, None)
        self._demands.pop(number, None)
        if self._keeper is not None:
            with contextlib.suppress(KeeperGoneError):
                self._keeper.tell({"op": "unwatch", "worker": number})
        task = asyncio.ensure_future(asyncio.to_thread(shutil.rmtree, self._work / str(number), ignore_errors=True))
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    def demand_of(self, worker: Worker) -> Demand:
        """Whose a worker is."""
        return self._demands[worker.number]

    async def stop(self) -> None:
        """End every process, and wait until they are gone."""
        await self._drop_keeper()
        if self._cleaning:
            await asyncio.wait(self._cleaning, timeout=5)


async def _no_folders() -> dict[str, Path]:
    return {}
