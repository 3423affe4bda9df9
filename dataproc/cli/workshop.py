"""What the verbs of `dataproc module` do on this machine, without a server."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from dataproc.clock import SystemClock
from dataproc.engine.local import LocalEngine
from dataproc.errors import ModuleNotFound
from dataproc.module import ModuleBroken
from dataproc.registry import Registry
from dataproc.registry.ambiguous import ambiguities
from dataproc.registry.building import BuildFailed, install
from dataproc.registry.environments import Environments, read_needs
from dataproc.registry.names import canonical
from dataproc.settings import Settings
from dataproc.telemetry import configure_logging
from dataproc.workbench import open_workbench

T = TypeVar("T")


def listed(settings: Settings) -> list[dict[str, Any]]:
    """The rows of `dataproc.list_modules`."""
    return _with_registry(settings, lambda registry: registry.list())


def described(settings: Settings, name: str) -> dict[str, Any]:
    """What `dataproc.describe_module` answers."""
    return _with_registry(settings, lambda registry: registry.describe_module(name))


def checked(folder: Path) -> dict[str, Any]:
    """`ok`, and the description with `problems` and `notes`, or `name` and `error` of a broken module."""
    configure_logging("auto", "critical")  # what is wrong is in the report
    return asyncio.run(_checked(folder))


async def _checked(folder: Path) -> dict[str, Any]:
    async with open_workbench(folder) as bench:
        try:
            methods = await bench.methods()
        except ModuleNotFound as broken:
            return {"ok": False, "name": bench.module, "error": broken.members().get("reason", broken.message)}
        problems = [f"{method.name}: {doubt}" for method in methods.values() for doubt in ambiguities(method)]
        told = await bench.describe()
    notes = [
        f"{method.name}: its result has no schema: annotate what it returns"
        for method in methods.values()
        if method.result is None and not method.view
    ]
    return {"ok": not problems, "problems": problems, "notes": notes, **told}


def installed(settings: Settings, folders: list[Path], upgrade: bool) -> Iterator[tuple[str, str, bool]]:
    """Makes environments one after the other: the module, what became of it, whether that is well."""
    for folder in folders or _all(settings.modules_dir):
        name = canonical(folder.name) or folder.name
        try:
            needs = read_needs(folder)
            if needs is None:
                if folders:
                    yield (
                        name,
                        "has no requirements.txt and no pyproject.toml: it runs in the server's environment",
                        True,
                    )
                continue
            place = install(folder, needs, Environments(settings.environments), upgrade=upgrade)
            yield name, f"ready, in {place}", True
        except (BuildFailed, ModuleBroken) as failed:
            yield name, f"FAILED\n{failed}", False


def _all(modules: Path) -> list[Path]:
    if not modules.is_dir():
        return []
    return sorted(path for path in modules.iterdir() if path.is_dir() and canonical(path.name) is not None)


def _with_registry(settings: Settings, work: Callable[[Registry], Awaitable[T]]) -> T:
    configure_logging(settings.log_format, "critical")  # what is wrong is in the rows

    async def run() -> T:
        async with _registry(settings) as registry:
            return await work(registry)

    return asyncio.run(run())


@asynccontextmanager
async def _registry(settings: Settings) -> AsyncIterator[Registry]:
    """The modules as a server started here would see them; what it copies goes to a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="dataproc-modules-") as place:
        kept = {"cache_dir": Path(place), "environments_dir": settings.environments}
        own = settings.model_copy(update=kept)
        engine = LocalEngine(own, "modules")
        registry = Registry(own, engine.describe, SystemClock())
        try:
            await engine.start()
            await registry.start()
            yield registry
        finally:
            await registry.stop()
            await engine.stop()
