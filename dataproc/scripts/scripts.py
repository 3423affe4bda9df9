"""`Scripts`: around one run of a script module, from the catalogue to the tree and back."""

from __future__ import annotations

import asyncio
import json
import time
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
MOST_CHECKED = 1000  # calls between their check and their run
GOOD_FOR = 1.0  # seconds for which what was found at the check is believed
Found = dict[str, Dataset | list[Model]]
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
        self._checked: dict[str, tuple[float, Found]] = {}

    def sweep(self) -> None:
        """At the start: delete what an earlier life of this node left."""
        self._runs.sweep()

    async def check(self, method: MethodInfo, asked: Asked) -> None:
        """Whether a call can be run. Raises InvalidParams, Forbidden, NotFound before anything is recorded."""
        bound = _bound(method, asked)
        found = await self._resolve(asked, bound)
        while len(self._checked) >= MOST_CHECKED:
            del self._checked[next(iter(self._checked))]
        self._checked[asked.run] = time.monotonic(), found

    def folders(self, tree: Tree, module: str) -> dict[str, Path]:
        """What a worker of the module is shown, beside what every worker is."""
        return self._runs.places(tree, module)

    async def run(self, method: MethodInfo, asked: Asked, tree: Tree, on_worker: OnWorker) -> Outcome:
        """One run: what it is given put in its place, the command run, what it left kept, its tree destroyed."""
        script, bound = _script(method), _bound(method, asked)
        checked, found = self._checked.pop(asked.run, (0.0, {}))
        if time.monotonic() - checked > GOOD_FOR:  # it waited: what is the newest may be another now
            found = await self._resolve(asked, bound)
        gifts = await self._gifts(found)
        name, places = f"run-{asked.run}", self._runs.places(tree, asked.module)
        try:
            await _on_disk(self._prepare, tree, asked.module, name, gifts)
            order = self._order(script, method, asked, bound, name)
            outcome = await on_worker(order, {key: self._place(key, path) for key, path in places.items()})
            if isinstance(outcome, Completed):
                outcome = await self._kept(outcome, places["runs"] / name / str(order["tree"]), asked, bound)
            return outcome
        finally:
            await asyncio.shield(asyncio.to_thread(self._runs.discard, places, name))

    # -- before -----------------------------------------------------------------------------------------------------

    async def _resolve(self, asked: Asked, bound: Bound) -> Found:
        """What the catalogue has for each input that names something of it."""
        principal = asked.principal
        if bound.reads:
            require(principal, "catalogue.read")
        if bound.writes:
            require(principal, "catalogue.write")
        found: Found = {}
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

    async def _gifts(self, found: Found) -> dict[str, Path | str]:
        """Files, or texts of small ones, by their place in `input/`."""
        gifts: dict[str, Path | str] = {}
        for name, what in found.items():
            if isinstance(what, Dataset):
                file = await self._catalogue.renditions.csv(what)
                gifts[f"{name}/{file.name}"] = file
                continue
            for model in what:
                gifts[f"{name}/{model.id}/model"] = await self._catalogue.renditions.model(model)
                gifts[f"{name}/{model.id}/model_info.json"] = json.dumps(model.info, ensure_ascii=False)
        return gifts

    def _prepare(self, tree: Tree, module: str, name: str, gifts: dict[str, Path | str]) -> None:
        places = self._runs.make(tree, module, name)
        for place, gift in gifts.items():
            give(gift, places["given"] / name, place)

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
        if not bound.output:
            return outcome
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


async def _on_disk(work: Callable[..., Any], *args: object) -> Any:
    try:
        return await asyncio.to_thread(work, *args)
    except OSError as error:
        raise unavailable(error) from error
