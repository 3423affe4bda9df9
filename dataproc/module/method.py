"""`Method`: one callable of a module: its declared options, its schemas, and the one way to call it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from inspect import getdoc
from types import CoroutineType, GeneratorType
from typing import Any

from pydantic import ValidationError

from dataproc.module.broken import ModuleBroken
from dataproc.module.context import Context
from dataproc.module.failure import Origin, clipped, raised
from dataproc.module.loop import Loop
from dataproc.module.reply import Refused, Reply
from dataproc.module.result import to_reply
from dataproc.module.signature import Signature, read_signature

METHOD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
ERRORS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Options:
    """What an author declares of a method. None leaves a limit to the server's settings.

    timeout, grace: seconds for a run, and between SIGTERM and SIGKILL. exclusive: one at a time in a session.
    reads_only: changes nothing in the session directory. view: returns a table. input, output: declared names.
    retries: how often a crashed run may be tried again. network: needs it. memory: bytes of the worker's whole tree.
    processes: how many it may have.
    """

    timeout: float | None = None
    grace: float | None = None
    exclusive: bool = False
    reads_only: bool = False
    view: bool = False
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    retries: int = 0
    network: bool = False
    memory: int | None = None
    processes: int | None = None

    def __post_init__(self) -> None:
        _check("timeout", self.timeout, float, 0.001)
        _check("grace", self.grace, float, 0)
        _check("memory", self.memory, int, 1)
        _check("processes", self.processes, int, 1)
        _check("retries", -1 if self.retries is None else self.retries, int, 0)
        for name in ("exclusive", "reads_only", "view", "network"):
            if not isinstance(getattr(self, name), bool):
                raise ModuleBroken(f"option {name!r} must be True or False")
        for name in ("input", "output"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))


class Method:
    """A function that is served under a name. Its schemas are made once, at first need."""

    def __init__(self, name: str, function: Callable[..., Any], options: Options, loop: Loop) -> None:
        self.name, self.function, self.options = name, function, options
        self._loop = loop

    @cached_property
    def signature(self) -> Signature:
        """What it takes and gives; ModuleBroken where that has no JSON Schema."""
        return read_signature(self.function)

    def describe(self) -> dict[str, Any]:
        """The published description, of JSON values alone."""
        signature = self.signature
        return {
            "name": self.name,
            "description": getdoc(self.function) or "",
            "params": signature.params,
            "result": signature.result,
            "returns": signature.returns,
            **asdict(self.options),
            "input": list(self.options.input),
            "output": list(self.options.output),
        }

    def invoke(self, ctx: Context, params: dict[str, Any], origin: Origin) -> Reply:
        """Check the params, call the function, write its result. Whatever it does is in the reply; nothing escapes.

        A coroutine runs on the module's event loop, which is kept for the process; what it leaves running is cancelled.
        """
        try:
            signature = self.signature
            try:
                arguments = signature.validate(params)
            except ValidationError as error:
                return Refused(_field_errors(error))
            if signature.context is not None:
                arguments[signature.context] = ctx
            value = self.function(**arguments)
            if type(value) is CoroutineType:
                value = self._loop.run(value)
            elif type(value) is GeneratorType:
                value = list(value)
            if (value is None and signature.returns == "unknown") or signature.returns == "nothing":
                value = True
            return to_reply(value, view=self.options.view)
        except BaseException as error:
            return raised(error, origin)


def _field_errors(error: ValidationError) -> list[dict[str, Any]]:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [
        {"loc": list(one["loc"]), "msg": clipped(one["msg"], 1000), "type": one["type"]} for one in found[:ERRORS_SHOWN]
    ]


def _check(option: str, value: Any, kind: type[int] | type[float], least: float) -> None:
    """None, or a number of that kind (an int is a float too, a bool is neither)."""
    if value is None:
        return
    numbers = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, numbers) or not least <= value < 2**63:
        what = "a whole number" if kind is int else "a number"
        raise ModuleBroken(f"option {option!r} must be {what}, at least {least:g}")


def _names(option: str, names: str | Iterable[str]) -> tuple[str, ...]:
    found = (names,) if isinstance(names, str) else tuple(names)
    for name in found:
        if not isinstance(name, str) or not METHOD_NAME.fullmatch(name):
            raise ModuleBroken(f"option {option!r}: {name!r} is no name (letters, digits, '_', '-', '.')")
    return found
