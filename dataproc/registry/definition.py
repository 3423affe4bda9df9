"""Modules of scripts, described by their definition file. Nothing of the module is run, whatever stands in it.

Facts: the definition file of the public xData documentation (`name`, `description`, `supports`, `definitions`,
`scripts`). Keys that are not known are kept and ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dataproc.module import ModuleBroken
from dataproc.registry.description import Description, Limits, MethodInfo, Script
from dataproc.registry.schemas import compile_check
from dataproc.registry.services import Services

PLACES = (
    "src/definitions/definition.json",
    "src/definitions/definitions.json",
    "definition.json",
    "definitions.json",
)
TYPES = ("training", "prediction", "aggregation", "model_transformation", "data_transformation")
SOURCES = ("data_ddc", "model_store_ddc", "path", "value")
MOST_BYTES = 2**20
MOST_SCRIPTS = 1000
PARAMS = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def find_definition(folder: Path) -> Path | None:
    """The definition file of a folder; None for one that is no module of scripts."""
    return next((folder / place for place in PLACES if (folder / place).is_file()), None)


def read_definition(module: str, folder: Path) -> Description:
    """What the module in `folder` offers. ModuleBroken names the file, and the place in it that is wrong."""
    file = find_definition(folder)
    if file is None:
        raise ModuleBroken(f"the folder has no {PLACES[0]}")
    shown = file.relative_to(folder).as_posix()
    try:
        return _Reader(module, Services(folder)).read(_load(file))
    except _WrongError as wrong:
        raise ModuleBroken(f"{shown}: {wrong}") from None


class _WrongError(ValueError):
    """What is wrong with the definition, and where."""


def _load(file: Path) -> Any:
    if file.stat().st_size > MOST_BYTES:
        raise _WrongError(f"is larger than {MOST_BYTES} bytes")
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise _WrongError(f"is no JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise _WrongError(f"is no JSON: {type(error).__name__}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _WrongError(f"contradicts itself: the name {twice[:100]!r} stands twice in one object")
    return found


class _Reader:
    """Reads one definition; every complaint names its place."""

    def __init__(self, module: str, services: Services) -> None:
        self.module, self.services = module, services

    def read(self, told: Any) -> Description:
        top = _dict(told, "the file")
        name = top.get("name", self.module)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _WrongError("name: is to be a name like org.example.my-module (letters, digits, '.', '_', '-')")
        if "scripts" not in top:
            raise _WrongError("lacks `scripts`: an object of scripts by label")
        scripts = _dict(top["scripts"], "scripts")
        if not 1 <= len(scripts) <= MOST_SCRIPTS:
            raise _WrongError(f"scripts: is to hold 1 to {MOST_SCRIPTS} scripts")
        methods = {label: self.method(label, each) for label, each in scripts.items()}
        version = top.get("version", "")
        return Description(name, str(version)[:100], _text(top, "description", "description"), True, methods)

    def method(self, label: str, told: Any) -> MethodInfo:
        where = f"scripts.{label[:100]}"
        if not _NAME.fullmatch(label):
            raise _WrongError(f"{where}: is no label of a script (letters, digits, '.', '_', '-')")
        script = _dict(told, where)
        kind = script.get("type", "")
        if "type" in script and kind not in TYPES:
            raise _WrongError(f"{where}.type: {str(kind)[:50]!r} is none of {', '.join(TYPES)}")
        path = script.get("path")
        if not isinstance(path, str) or not _NAME.fullmatch(path):
            raise _WrongError(f"{where}.path: is to name a service of docker-compose.yml")
        try:
            service = self.services.named(path)
        except ModuleBroken as broken:
            raise _WrongError(f"{where}.path: {broken.reason}") from None
        inputs = _entries(script.get("input", {}), f"{where}.input", SOURCES)
        outputs = _entries(script.get("output", {}), f"{where}.output")  # tables and models may come in one
        return MethodInfo(
            module=self.module, name=label, description=_text(script, "description", f"{where}.description"),
            params=PARAMS, result={"const": True}, returns="nothing", limits=Limits(), exclusive=False,
            reads_only=False, view=False, input=tuple(inputs), output=tuple(outputs), retries=0,
            check=compile_check(PARAMS),
            script=Script(kind, service.command, service.environment, service.links, inputs, outputs),
        )  # fmt: skip


def _dict(told: Any, where: str) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise _WrongError(f"{where}: is to be an object")
    return told


def _text(told: dict[str, Any], name: str, where: str) -> str:
    text = told.get(name) or ""
    if not isinstance(text, str):
        raise _WrongError(f"{where}: is to be a string")
    return text[: 64 * 1024]


def _entries(told: Any, where: str, either: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Input or output definitions by name. either: fields of which an entry has one."""
    found: dict[str, dict[str, Any]] = {}
    for name, entry in _dict(told if told is not None else {}, where).items():
        at = f"{where}.{name[:100]}"
        if not _NAME.fullmatch(name):
            raise _WrongError(f"{at}: is no name that a folder can have (letters, digits, '.', '_', '-')")
        read = _dict(entry if entry is not None else {}, at)
        if len(both := [kind for kind in either if kind in read]) > 1:
            raise _WrongError(f"{at}: contradicts itself: it names {' and '.join(both)}")
        for kind in ("data_ddc", "model_store_ddc", "path"):
            if kind in read and not isinstance(read[kind], str):
                raise _WrongError(f"{at}.{kind}: is to be a string")
        found[name] = read
    return found
