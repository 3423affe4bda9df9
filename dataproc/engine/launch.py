"""What zygotes and workers are told at their start: worked out here from settings, without doing anything."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataproc.engine import landlock, seccomp, view
from dataproc.engine.bounds import Limits
from dataproc.engine.confine import PLACES, Walls
from dataproc.engine.mounts import MODULE
from dataproc.module import Generation
from dataproc.settings import Settings
from dataproc.types import wire_id

BOOT = f"import sys; sys.path.insert(0, {view.LIBRARY!r}); from dataproc.engine.zygote import main; main()"
BARE_BOOT = "from dataproc.engine.zygote import main; main()"
# An interpreter of a module's own finds this package alone, and none of what is installed beside it.
OTHER_BOOT = (
    "import sys; sys.path.append({0!r}); import dataproc; sys.path.remove({0!r}); "
    "from dataproc.engine.zygote import main; main()"
)
HOMES = ("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME")  # all are the work directory
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "MPLBACKEND": "agg"}
SPARES = 1  # forks that a zygote keeps ready


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

    def __hash__(self) -> int:  # quick: each run asks for it several times
        return hash((self.session, self.generation.digest))


@dataclass(frozen=True, slots=True)
class Ground:
    """What all processes of an engine stand on: the settings, whether there are namespaces, the workers' uid."""

    settings: Settings
    namespaces: bool
    uid: int | None  # None: the server's own

    def zygote(self, number: int, generation: Generation, network: bool) -> dict[str, Any]:
        """The keeper's order to start a zygote."""
        shown = self._view(generation, network)
        home = PLACES["work"] if self.namespaces else tempfile.gettempdir()
        return {
            "op": "zygote", "id": number, "uid": self.uid, "network": network, "tmp": self.settings.worker_tmp,
            "memory": self.settings.worker_memory, "processes": self.settings.worker_processes,
            "argv": [shown.executable, "-I", "-c", self._boot(generation)],
            "env": ENVIRONMENT | dict.fromkeys(HOMES, home),
            "binds": shown.binds, "links": shown.links, "texts": shown.texts,
        }  # fmt: skip

    def _boot(self, generation: Generation) -> str:
        if self.namespaces:
            return BOOT
        return OTHER_BOOT.format(str(Path(__file__).parents[2])) if generation.interpreter else BARE_BOOT

    def _view(self, generation: Generation, network: bool) -> view.View:
        interpreter = generation.interpreter or view.default_interpreter()
        if not self.namespaces:
            return view.View([], executable=interpreter)
        code = Path(generation.location) if generation.kind != "entry_point" and generation.location else None
        uid = self.uid if self.uid is not None else os.geteuid()
        return view.system_view(code=code, interpreter=interpreter, uid=uid, network=network)

    def configuration(self, generation: Generation, network: bool, *, preload: bool) -> dict[str, Any]:
        """A zygote's first frame."""
        on = self.settings.sandbox != "off"
        location = MODULE if generation.kind != "entry_point" and self.namespaces else generation.location
        read = () if self.namespaces else (str(Path(__file__).parent.parent), location)
        walls = Walls(
            self.namespaces, on and landlock.abi() >= landlock.OLDEST, on and seccomp.available(), network,
            self.settings.worker_tmp, read,
        )  # fmt: skip
        source = {"kind": generation.kind, "location": location, "name": generation.module}
        return {
            "module": source if generation.location else None,
            "preload": preload,
            "spares": SPARES if preload else 0,
            "walls": asdict(walls),
        }

    def preloads(self, generation: Generation) -> bool:
        """Whether a zygote may import the module before it forks.

        Not where only Landlock stands, which has to be in force before the first line of a module and then fits one
        session alone.
        """
        return (self.namespaces or self.settings.sandbox == "off") and bool(generation.location)

    def worker(self, demand: Demand, paths: dict[str, Path]) -> dict[str, Any]:
        """A zygote's order to give a worker to a session. `trees` names the mounts that travel with it, in order."""
        profile, settings = demand.profile, self.settings
        processes = profile.processes if self.namespaces else 2**20  # elsewhere the uid is shared with others
        limits = Limits(profile.memory, processes, settings.worker_open_files, settings.worker_file_size)
        return {
            "session": wire_id(demand.session or ""),
            "limits": asdict(limits),
            "trees": sorted(paths) if self.namespaces else [],
            "places": {name: PLACES[name] if self.namespaces else str(path) for name, path in paths.items()},
            "result_limit": settings.result_limit,
            "result_max": settings.result_max,
        }
