"""The rows of views: run once in a session, and kept there for the pages that follow.

They are kept beside the session's files, where no worker sees them, and go with the session.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from dataproc.errors import DataprocError, ExecFailed, NotFound, StorageUnavailable
from dataproc.executor import Call
from dataproc.registry import MethodInfo, ModuleEntry
from dataproc.runs import Completed, error_of
from dataproc.storage import Workspace
from dataproc.storage.paths import read_path
from dataproc.tables import Builder, NotATableError, Shelf, Table
from dataproc.types import Json, JsonObject, Principal
from dataproc.web.cra.columns import declared

if TYPE_CHECKING:
    from dataproc.composition import System

FOLDER = "views"  # of a session, beside its files
CHUNK = 2**20  # bytes of a large result handed on at once
REFUSED = 3  # exit status of `dataproc.tables`


@dataclass(frozen=True, slots=True)
class View:
    """A view with its params: what is run, and what its rows are kept under."""

    entry: ModuleEntry
    method: MethodInfo
    params: JsonObject

    @property
    def name(self) -> str:
        """The name of its kept table."""
        told = json.dumps([self.entry.name, self.method.name, self.params], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows at hand."""

    shelf: Shelf
    name: str
    table: Table


class KeptRows:
    """Gives a view's rows: those that are kept, else those of a run."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def of(self, principal: Principal, view: View, *, refresh: bool, request_id: str) -> Kept:
        """The rows. Calls at once share one run. Raises what a run raises, and ExecFailed for what is no table."""
        assert principal.session is not None
        name = view.name
        turn = self._turns.setdefault((principal.session, name), asyncio.Lock())
        workspace = self._system.workspaces.of(principal.session)
        async with turn:
            async with workspace.checkout() as tree:
                shelf = Shelf(tree.files.parent / FOLDER, self._system.settings.session_bytes)
            try:
                table = None if refresh else await asyncio.to_thread(shelf.open, name)
                if table is None:
                    table = await self._run(principal, view, workspace, shelf, request_id)
            except FileNotFoundError:
                raise NotFound("the session has ended") from None
            except OSError as error:
                raise StorageUnavailable("the view's rows could not be kept; try again") from error
        return Kept(shelf, name, table)

    async def _run(
        self, principal: Principal, view: View, workspace: Workspace, shelf: Shelf, request_id: str
    ) -> Table:
        assert principal.session is not None
        call = Call(
            principal=principal,
            session=principal.session,
            module=view.entry.name,
            method=view.method.name,
            params=view.params,
            input={},
            output={},
            timeout=None,
            request_id=request_id,
        )
        ended = await self._system.executor.execute(call)
        if not isinstance(ended.outcome, Completed):
            error = error_of(ended.outcome)
            assert error is not None
            raise error
        result = ended.outcome.result
        head = {"declared": [name for name, _ in declared(view.method.result)], "messages": ended.outcome.messages}
        try:
            path = f".dataproc/results/{ended.run}.json"
            if isinstance(result, dict) and result.get("$artifact") == path:
                return await _from_file(workspace, path, shelf, view.name, head)
            if not isinstance(result, list):
                raise NotATableError("it is no array of rows")
            return await asyncio.to_thread(_from_rows, shelf, view.name, result, head)
        except NotATableError as error:
            told = f"{view.method.name} returned no table: {error}; a view returns a list of objects, or a data frame"
            raise ExecFailed(told, type="NotATable", message=str(error)) from None


def _from_rows(shelf: Shelf, name: str, rows: Iterable[Json], head: dict[str, Any]) -> Table:
    builder = Builder(head["declared"])
    builder.add(rows)
    return shelf.keep(name, lambda part: builder.write(part, head))


async def _from_file(workspace: Workspace, path: str, shelf: Shelf, name: str, head: dict[str, Any]) -> Table:
    """The table of a result that was written to the session, which then goes: it would be there twice."""
    part = await asyncio.to_thread(shelf.part)
    try:
        await _in_a_process(workspace, path, part, head)
        with suppress(DataprocError):
            await workspace.delete(read_path(path))
        return await asyncio.to_thread(shelf.put, name, part)
    finally:
        part.unlink(missing_ok=True)


async def _in_a_process(workspace: Workspace, path: str, part: Path, head: dict[str, Any]) -> None:
    """Have a process of its own read the rows: it takes seconds, and memory."""
    reading = await workspace.read(read_path(path))
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-I", "-m", "dataproc.tables", str(part), json.dumps(head)]
    environment = {"OPENBLAS_NUM_THREADS": "1", "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")}
    process = None
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
        assert process.stdin is not None
        at = 0
        with suppress(BrokenPipeError, ConnectionResetError):  # it has seen enough
            while data := await asyncio.to_thread(reading.pread, CHUNK, at):
                process.stdin.write(data)
                await process.stdin.drain()
                at += len(data)
        process.stdin.close()
        said, _ = await process.communicate()
    finally:
        await asyncio.to_thread(reading.close)
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == REFUSED:
        raise NotATableError(said.decode("utf-8", "replace")[:500])
    if process.returncode:
        raise NotATableError("it could not be read")
