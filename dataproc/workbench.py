"""`Workbench`: one module at work without a server: the whole system on a temporary folder, walls and all.

What authors' tests, `dataproc module check` and `dataproc module dev` stand on.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataproc.composition import System, build
from dataproc.errors import DataprocError, ModuleNotFound
from dataproc.executor import Call
from dataproc.registry import MethodInfo
from dataproc.registry.names import canonical
from dataproc.runs import Completed, error_of
from dataproc.settings import Settings
from dataproc.storage import Tree
from dataproc.types import Principal, new_id

OUTPUT_SHOWN = 64 * 1024  # bytes of what a run printed


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that completed. files: those of the session directory after it, by their path in there."""

    result: Any
    output: str
    messages: tuple[str, ...]
    files: Mapping[str, Path]


class RunFailed(Exception):
    """A run that did not complete. error: as a caller over HTTP is told, with `code` and `data`; output: its log."""

    def __init__(self, error: DataprocError, output: str) -> None:
        data = error.members()
        parts = [error.message, str(data.get("traceback") or ""), output and f"It printed:\n{output}"]
        super().__init__("\n".join(part for part in parts if part))
        self.error, self.output, self.data = error, output, data


@dataclass(frozen=True, slots=True)
class Bench:
    """A session of its own, in which methods of one module run."""

    system: System
    module: str
    principal: Principal
    session: str
    tree: Tree

    @property
    def files(self) -> dict[str, Path]:
        """The regular files of the session directory by their path in there."""
        found = (Path(folder) / name for folder, _, names in os.walk(self.tree.files) for name in names)
        inside = {path.relative_to(self.tree.files).as_posix(): path for path in found if path.is_file()}
        return dict(sorted(inside.items()))

    async def run(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the contract's name
        output: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the run's own limit, kept by the executor
    ) -> Ran:
        """Run one method to its end. RunFailed where it fails; DataprocError where it does not begin."""
        self._hand_over()
        call = Call(
            principal=self.principal, session=self.session, module=self.module, method=method, params=dict(params),
            input=dict(input or {}), output=dict(output or {}), timeout=timeout, request_id="workbench",
        )  # fmt: skip
        ended = await self.system.executor.execute(call)
        printed = self._printed(call.run_id)
        if (error := error_of(ended.outcome)) is not None:
            raise RunFailed(error, printed)
        assert isinstance(ended.outcome, Completed)
        return Ran(ended.outcome.result, printed, tuple(ended.outcome.messages), self.files)

    def _hand_over(self) -> None:
        """What a test has put into the session directory belongs to the workers, as uploads do."""
        uid = self.system.engine.ground.uid
        if uid is None:
            return
        # By descriptors and never through a link: what a run has left there may be a trap.
        for _, folders, names, place in os.fwalk(self.tree.files, follow_symlinks=False):
            for name in (*folders, *names):
                os.chown(name, uid, uid, dir_fd=place, follow_symlinks=False)

    def _printed(self, run: str) -> str:
        try:
            with (self.system.executor.folder.path / run[-2:] / f"{run}.log").open("rb") as log:
                return log.read(OUTPUT_SHOWN).decode(errors="replace")
        except FileNotFoundError:
            return ""


class Workbench:
    """A system that serves the one module at `module`; for `async with`. Sessions of it share nothing."""

    def __init__(self, system: System, module: str) -> None:
        self.system, self.module = system, module

    async def methods(self) -> dict[str, MethodInfo]:
        """The module's methods, described in the sandbox. ModuleNotFound with `data.reason` where it is broken."""
        entry = await self.system.registry.resolve(self.module)
        return dict(entry.methods)

    async def describe(self) -> dict[str, Any]:
        """The module as `dataproc.describe_module` publishes it."""
        return await self.system.registry.describe_module(self.module)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Bench]:
        """A new key with a new session, which ends with the block."""
        key = await self.system.keys.create(f"workbench-{new_id()}")
        principal = Principal(key.id, "key", key.scopes, key.grants)
        opened = await self.system.sessions.open(principal)
        try:
            async with self.system.workspaces.of(opened.session.id).checkout() as tree:
                yield Bench(self.system, self.module, principal, opened.session.id, tree)
        finally:
            await self.system.reaper.end(opened.session.id, "closed")


@asynccontextmanager
async def open_workbench(folder: Path) -> AsyncIterator[Workbench]:
    """A workbench for the module in that folder. ModuleNotFound for a folder that can be none."""
    name = module_name(folder)
    with tempfile.TemporaryDirectory(prefix="dataproc-workbench-") as place:
        system = await build(temporary_settings(Path(place), name, folder))
        try:
            await system.start()
            yield Workbench(system, name)
        finally:
            await system.stop()


def module_name(folder: Path) -> str:
    """The canonical name of the module in a folder."""
    name = canonical(folder.absolute().name)
    if name is None or not folder.is_dir():
        why = "is no folder" if not folder.is_dir() else "is no name for a module: letters, digits, '-' and '_'"
        raise ModuleNotFound(f"{folder} {why}", name=str(folder))
    return name


def temporary_settings(place: Path, name: str, folder: Path, **changes: Any) -> Settings:
    """The author's own settings, but all that is kept goes to `place`, and the modules are the one in `folder`."""
    (place / "modules").mkdir()
    (place / "modules" / name).symlink_to(folder.absolute(), target_is_directory=True)
    own = Settings()
    kept = {"storage_url": str(place / "storage"), "database_url": None, "cache_dir": None, "fsync": False}
    shown = {"modules_dir": place / "modules", "environments_dir": own.environments}
    return own.model_copy(update={**kept, **shown, **changes})
