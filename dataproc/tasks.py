"""What a worker is told of a run, and what it may use: the caller's wish, else the method's, else the settings'."""

from __future__ import annotations

from pathlib import PurePosixPath

from dataproc.engine.launch import Profile
from dataproc.engine.words import Task
from dataproc.errors import InvalidParams
from dataproc.settings import Settings
from dataproc.types import JsonObject
from dataproc.under_way import UnderWay


def task_of(settings: Settings, live: UnderWay) -> Task:
    """The run as its worker is told of it. Raises InvalidParams."""
    call, method, limits = live.call, live.method, live.method.limits
    timeout = call.timeout or limits.timeout or settings.run_timeout
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    if method.script is None:
        inputs, outputs = _paths("input", call.input, method.input), _paths("output", call.output, method.output)
    return Task(
        call.run_id, method.name, call.params, min(timeout, settings.max_run_timeout),
        settings.run_grace if limits.grace is None else limits.grace, live.output(settings.output_limit),
        inputs, outputs, live.hear,
    )  # fmt: skip


def profile_of(settings: Settings, live: UnderWay) -> Profile:
    """The bounds of its worker."""
    limits = live.method.limits
    memory, processes = limits.memory or settings.worker_memory, limits.processes or settings.worker_processes
    return Profile(memory, processes, limits.network and settings.allows_network(live.entry.name))


def _paths(kind: str, given: JsonObject, declared: tuple[str, ...]) -> dict[str, str]:
    """Paths in the session directory by declared name. Each entry is `{"path": "a/b.csv"}`."""
    found = {}
    for name, entry in given.items():
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise InvalidParams.field([kind, name], f"is not declared by the method; declared: {known}", "unknown_name")
        path = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(path, str):
            raise InvalidParams.field([kind, name], 'must be an object like {"path": "table.csv"}', "object_type")
        parts = PurePosixPath(path)
        if not path or parts.is_absolute() or ".." in parts.parts or "\0" in path:
            raise InvalidParams.field([kind, name, "path"], "must be a relative path without `..`", "path")
        found[name] = path
    return found
