"""`Module`: a named set of methods that a server can serve."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from inspect import iscoroutinefunction
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import Any, ParamSpec, TypeVar, overload

from dataproc.module.broken import ModuleBroken
from dataproc.module.context import Context
from dataproc.module.failure import Origin
from dataproc.module.loop import Loop
from dataproc.module.method import METHOD_NAME, Method, Options
from dataproc.module.reply import Reply

MODULE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")

P = ParamSpec("P")
R = TypeVar("R")


class Module:
    """What an author binds as `module`.

    name: an alias of the canonical name, which is the folder's or the entry point's.
    fork: False starts a fresh interpreter for every worker, for libraries that cannot be forked after import.
    """

    def __init__(self, name: str, version: str = "", description: str = "", fork: bool = True) -> None:
        if not isinstance(name, str) or not MODULE_NAME.fullmatch(name):
            raise ModuleBroken(f"{name!r} is no name for a module: letters, digits, '_', '-' and '.'")
        self.name, self.version, self.description, self.fork = name, version, description, fork
        # Whose frames are the module's own, until `load` knows better.
        self.origin = Origin.of(Path(sys._getframe(1).f_code.co_filename).parent)
        self._methods: dict[str, Method] = {}
        self._loop = Loop()

    @property
    def methods(self) -> Mapping[str, Method]:
        """The methods by name, in the order of their definition."""
        return MappingProxyType(self._methods)

    @overload
    def method(self, name: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def method(
        self,
        name: str | None = None,
        /,
        *,
        timeout: float | None = None,
        grace: float | None = None,
        exclusive: bool = False,
        reads_only: bool = False,
        view: bool = False,
        input: str | Iterable[str] = (),
        output: str | Iterable[str] = (),
        retries: int = 0,
        network: bool = False,
        memory: int | None = None,
        processes: int | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...

    def method(self, name: Any = None, /, **options: Any) -> Any:
        """Serve the function below: `@module.method`, `@module.method("a-name")`, `@module.method(timeout=60)`.

        Options are those of `Options`. The function itself stays as it is. A name that starts with `_` is private: it
        is not served. ModuleBroken, which names both places, where the name is taken; where an option makes no sense.
        """
        if callable(name):
            self._add(name, None, {})
            return name

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            self._add(function, name, options)
            return function

        return decorate

    def describe(self) -> dict[str, Any]:
        """The module as it is published, of JSON values alone."""
        return {
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "fork": self.fork,
            "methods": [method.describe() for method in self._methods.values()],
        }

    def invoke(self, method: str, ctx: Context, params: dict[str, Any]) -> Reply:
        """Call one method; KeyError for a name that there is not. Nothing that the method does escapes."""
        return self._methods[method].invoke(ctx, params, self.origin)

    def prepare(self) -> None:
        """Make every method's schemas now; ModuleBroken names the method that has none, and its place."""
        for method in self._methods.values():
            if iscoroutinefunction(method.function):
                importlib.import_module("asyncio")  # before a fork, once for all workers
            try:
                _ = method.signature
            except ModuleBroken as broken:
                raise ModuleBroken(
                    f"method {method.name!r} ({self._place(method.function)}): {broken.reason}"
                ) from broken

    def close(self) -> None:
        """End the event loop of the module's coroutines, if there is one. A worker that ends need not."""
        self._loop.close()

    def _add(self, function: Any, name: str | None, options: dict[str, Any]) -> None:
        """Everything is checked before the method stands in the table."""
        if not isinstance(function, FunctionType):
            raise ModuleBroken(f"a method is a function (def or async def), not {type(function).__name__}")
        name, place = name or function.__name__, self._place(function)
        if isinstance(name, str) and name.startswith("_"):
            return
        if not isinstance(name, str) or not METHOD_NAME.fullmatch(name):
            raise ModuleBroken(f"{name!r} at {place} is no name for a method: letters, digits, '_', '-' and '.'")
        if (earlier := self._methods.get(name)) is not None:
            raise ModuleBroken(f"method {name!r} is defined twice: at {self._place(earlier.function)} and at {place}")
        try:
            declared = Options(**options)
        except ModuleBroken as broken:
            raise ModuleBroken(f"method {name!r} at {place}: {broken.reason}") from None
        self._methods[name] = Method(name, function, declared, self._loop)

    def _place(self, function: Callable[..., Any]) -> str:
        return self.origin.place(function.__code__)
