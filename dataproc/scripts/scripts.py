"""`Scripts`: around one run of a script module, from the catalogue to the tree and back."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from dataproc.access.scopes import require
from dataproc.catalogue import Catalogue, Dataset, Model
from dataproc.catalogue.names import read_ddc
from dataproc.errors import DataprocError, ExecFailed, InvalidParams, NotFound
from dataproc.registry import MethodInfo, Script
from dataproc.runs import Completed, Failed, Outcome
from dataproc.scripts.binding import Bound, bind
from dataproc.scripts.outputs import find_outputs
from dataproc.storage import Tree, Workspaces
from dataproc.storage.paths import unavailable
from dataproc.storage.script_runs import ScriptRuns, give
from dataproc.types import JsonObject, Principal, wire_id

MOST_MODELS = 100  # that one input may select
Place = Callable[[str, Path], str]
OnWorker = Callable[[JsonObject, dict[str, str]], Awaitable[Outcome]]
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """One run: who asked for what, under which id."""

    principal: Principal
    session: str
    run: str
    module: str
    params: JsonObject
    input: JsonObject
    output: JsonObject


class Scripts:
    """Prepares runs of scripts, and keeps what they leave."""

    def __init__(self, catalogue: Catalogue, workspaces: Workspaces, node: str, place: Place) -> None:
        """place: where a worker sees a folder of that name."""
        self._catalogue, self._place = catalogue, place
        self._runs = ScriptRuns(workspaces.folders, node)
        self._owner = workspaces.folders.worker_uid

    def sweep(self) -> None:
        """At the start: delete what an earlier life of this node left."""
        self._runs.sweep()

    async def check(self, method: MethodInfo, asked: Asked) -> None:
        """Whether a call can be run. Raises InvalidParams, Forbidden, NotFound before anything is recorded."""
        await self._resolve(asked, _bound(method, asked))

    def folders(self, tree: Tree, module: str) -> dict[str, Path]:
        """What a worker of the module is shown, beside what every worker is."""
        return self._runs.places(tree, module)

    async def run(self, method: MethodInfo, asked: Asked, tree: Tree, on_worker: OnWorker) -> Outcome:
        """One run: what it is given put in its place, the command run, what it left kept, its tree destroyed."""
        script, bound = _script(method), _bound(method, asked)
        found = await self._resolve(asked, bound)
        name = f"run-{asked.run}"
        places = await _on_disk(self._runs.make, tree, asked.module, name)
        try:
            await self._give(found, places["given"] / name)
            order = self._order(script, method, asked, bound, name)
            outcome = await on_worker(order, {key: self._place(key, path) for key, path in places.items()})
            if isinstance(outcome, Completed):
                outcome = await self._kept(outcome, places["runs"] / name / str(order["tree"]), asked, bound)
            return outcome
        finally:
            await asyncio.shield(asyncio.to_thread(self._runs.discard, places, name))

    # -- before -----------------------------------------------------------------------------------------------------

    async def _resolve(self, asked: Asked, bound: Bound) -> dict[str, Dataset | list[Model]]:
        """What the catalogue has for each input that names something of it."""
        principal = asked.principal
        if bound.reads:
            require(principal, "catalogue.read")
        if bound.writes:
            require(principal, "catalogue.write")
        found: dict[str, Dataset | list[Model]] = {}
        for name, entry in bound.input.items():
            if "data_ddc" in entry:
                ddc = read_ddc(entry["data_ddc"], "input", name, "data_ddc")
                found[name] = await self._catalogue.datasets.resolve(principal.key, ddc)
            elif "model_store_ddc" in entry:
                found[name] = await self._models(principal.key, name, entry)
        return found

    async def _models(self, key: str, name: str, entry: dict[str, Any]) -> list[Model]:
        limit, offset = entry.get("limit", 1), entry.get("offset", 0)
        for field, value in (("limit", limit), ("offset", offset)):
            if type(value) is not int or not 0 <= value <= MOST_MODELS:
                raise InvalidParams.field(["input", name, field], f"is to be 0 to {MOST_MODELS}", "int_type")
        found = await self._catalogue.models.find(
            key, entry["model_store_ddc"], entry.get("query"), offset, limit, entry.get("order", "-start_datetime"),
            "input", name, said="query",
        )  # fmt: skip
        if not found:
            told = f"model store {entry['model_store_ddc']!r} has no model that `query` selects"
            raise NotFound(f"input.{name}: {told}", name=entry["model_store_ddc"])
        return found

    async def _give(self, found: dict[str, Dataset | list[Model]], given: Path) -> None:
        renditions = self._catalogue.renditions
        for name, what in found.items():
            if isinstance(what, Dataset):
                file = await renditions.csv(what)
                await _on_disk(give, file, given / name / file.name)
                continue
            await _on_disk(_folder, given / name)
            for model in what:
                folder = given / name / model.id
                await _on_disk(give, await renditions.model(model), folder / "model")
                await _on_disk(_write, folder / "model_info.json", json.dumps(model.info, ensure_ascii=False))

    def _order(self, script: Script, method: MethodInfo, asked: Asked, bound: Bound, name: str) -> JsonObject:
        """What the worker is told, instead of params."""
        configuration: JsonObject = {
            "module": asked.module, "method": method.name, "params": asked.params, "input": dict(bound.input),
            "output": dict(bound.output), "session_id": wire_id(asked.session), "run_id": asked.run,
        }  # fmt: skip
        return {
            "run": name,
            "tree": str(uuid.uuid4()),
            "command": list(script.command),
            "environment": dict(script.environment),
            "links": dict(script.links),
            "configuration": configuration,
            "files": {key: entry["path"] for key, entry in bound.input.items() if "path" in entry},
            "values": {key: entry["value"] for key, entry in bound.input.items() if "value" in entry},
            "keep": {key: entry["path"] for key, entry in bound.output.items() if "path" in entry},
        }

    # -- afterwards -------------------------------------------------------------------------------------------------

    async def _kept(self, outcome: Completed, top: Path, asked: Asked, bound: Bound) -> Outcome:
        """The outcome of a run whose command succeeded, once what it left is in the catalogue."""
        with ExitStack() as stack:
            try:
                found = await _on_disk(find_outputs, top, bound.output, self._owner, stack)
                names = await self._catalogue.results.keep(
                    asked.principal.key, wire_id(asked.session), asked.run, found.tables, found.files
                )
            except ExecFailed as error:
                return Failed(error)
            except ValueError as error:  # a table that is none
                told = f"an output is no table: {error}; nothing of the run was kept"
                return Failed(ExecFailed(told, type="OutputRefused", message=told))
            except DataprocError as error:
                return Failed(error)
        log.info("script.kept", run_id=asked.run, module=asked.module, kept=len(names))
        return replace(outcome, messages=(*outcome.messages, *(f"kept {name}" for name in names), *found.notes))


def _script(method: MethodInfo) -> Script:
    assert method.script is not None
    return method.script


def _bound(method: MethodInfo, asked: Asked) -> Bound:
    return bind(_script(method), asked.input, asked.output)


def _folder(path: Path) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(0o755)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o444)


async def _on_disk(work: Callable[..., Any], *args: object) -> Any:
    try:
        return await asyncio.to_thread(work, *args)
    except OSError as error:
        raise unavailable(error) from error
