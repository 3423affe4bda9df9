"""The `input` and `output` of a call, merged over those of the script's definition. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from dataproc.catalogue.columns import Column, read_columns
from dataproc.catalogue.names import new_name, read_ddc
from dataproc.errors import InvalidParams
from dataproc.registry import Script
from dataproc.types import JsonObject

Side = Literal["input", "output"]
Entries = dict[str, dict[str, Any]]
SOURCES = ("data_ddc", "model_store_ddc", "path", "value")
TARGETS = ("data_ddc", "model_store_ddc", "path")
_FIELDS: Mapping[Side, frozenset[str]] = {
    "input": frozenset({*SOURCES, "query", "order", "offset", "limit", "description", "required"}),
    "output": frozenset(
        {*TARGETS, "model_kind", "model_description", "model_meta", "columns", "description", "required"}
    ),
}


@dataclass(frozen=True, slots=True)
class Bound:
    """What a run takes and gives, by name, as merged. reads, writes: whether the catalogue is asked for it."""

    input: Entries
    output: Entries
    reads: bool = field(init=False)
    writes: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", any(map(_of_catalogue, self.input.values())))
        object.__setattr__(self, "writes", any(map(_of_catalogue, self.output.values())))


def bind(script: Script, given_input: JsonObject, given_output: JsonObject) -> Bound:
    """The entries of a call. Raises InvalidParams, naming the name that is not the definition's, or the field."""
    inputs = _merged("input", script.input, given_input, SOURCES)
    outputs = _merged("output", script.output, given_output, TARGETS)
    for name, entry in inputs.items():
        if entry.get("required") is True and not any(source in entry for source in SOURCES):
            told = f"is not given, and the definition names nothing for it; give one of {', '.join(SOURCES)}"
            raise InvalidParams.field(["input", name], told, "missing")
        _check_ddc("input", name, entry)
    for name, entry in outputs.items():
        _check_ddc("output", name, entry)
        columns_of(name, entry)
    return Bound(inputs, outputs)


def columns_of(name: str, entry: Mapping[str, Any]) -> tuple[Column, ...] | None:
    """The columns that an output declares."""
    told = entry.get("columns")
    return None if told is None else read_columns(told, "output", name, "columns")


def _merged(side: Side, declared: Mapping[str, dict[str, Any]], given: JsonObject, kinds: tuple[str, ...]) -> Entries:
    found = {name: dict(entry) for name, entry in declared.items()}
    for name, entry in given.items():
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise InvalidParams.field(
                [side, name], f"is not in the script's definition; declared: {known}", "unknown_name"
            )
        if not isinstance(entry, dict):
            raise InvalidParams.field([side, name], f"is to be an object with one of {', '.join(kinds)}", "dict_type")
        if unknown := set(entry) - _FIELDS[side] - set(declared[name]):
            known = ", ".join(sorted(_FIELDS[side]))
            raise InvalidParams.field(
                [side, name, min(unknown)], f"is no field of an {side}; there are: {known}", "extra_forbidden"
            )
        chosen = [kind for kind in kinds if kind in entry]
        if side == "input" and len(chosen) > 1:
            raise InvalidParams.field([side, name], f"names {' and '.join(chosen)}; one of them is the input", "value")
        if chosen:  # another source takes the place of the definition's
            found[name] = {field: value for field, value in found[name].items() if field not in kinds}
        found[name].update(entry)
    return found


def _check_ddc(side: Side, name: str, entry: Mapping[str, Any]) -> None:
    for kind in ("data_ddc", "model_store_ddc"):
        if kind in entry:
            (read_ddc if side == "input" else new_name)(entry[kind], side, name, kind)
    if "path" in entry:
        path = entry["path"]
        parts = PurePosixPath(path) if isinstance(path, str) else None
        if parts is None or not path or parts.is_absolute() or ".." in parts.parts or "\0" in path:
            raise InvalidParams.field([side, name, "path"], "must be a relative path without `..`", "path")


def _of_catalogue(entry: Mapping[str, Any]) -> bool:
    return "data_ddc" in entry or "model_store_ddc" in entry
