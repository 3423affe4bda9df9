"""What stands behind the fixtures: workbenches on an event loop of their own, so that any kind of test may use them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog
from anyio.from_thread import BlockingPortal, start_blocking_portal

from dataproc.module.load import find_source
from dataproc.registry.names import folded
from dataproc.workbench import Bench, Ran, Workbench, open_workbench

DEFINITIONS = ("src/definitions/definition.json", "src/definitions/definitions.json", "definition.json")


class RunMethod:
    """Runs methods of one module in one session. Raises RunFailed for a run that fails, InvalidParams for params that
    are refused, MethodNotFound and their like where none begins.
    """

    def __init__(self, portal: BlockingPortal, bench: Bench) -> None:
        self._portal, self._bench = portal, bench

    @property
    def session(self) -> Path:
        """The session directory, where the runs find and leave their files."""
        return self._bench.tree.files

    def __call__(self, method: str, /, **params: Any) -> Ran:
        """Run a method with those params."""
        return self.call(method, params)

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the contract's name
        output: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Ran:
        """The same with the other members of `dataproc.exec`. timeout: seconds."""
        return self._portal.call(
            partial(self._bench.run, method, params or {}, input=input, output=output, timeout=timeout)
        )


class Workbenches:
    """One workbench a module, opened when first asked for, ended with the `with`."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._open: dict[Path, Workbench] = {}

    def __enter__(self) -> Self:
        if not structlog.is_configured():  # else every line of a server's log would be printed into the tests
            structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        self._portal = self._stack.enter_context(start_blocking_portal("asyncio"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, raised, trace)

    @contextmanager
    def running(self, folder: Path) -> Iterator[RunMethod]:
        """A session of the module in that folder."""
        folder = folder.resolve()
        if (bench := self._open.get(folder)) is None:
            bench = self._stack.enter_context(self._portal.wrap_async_context_manager(open_workbench(folder)))
            self._open[folder] = bench
        self._portal.call(bench.system.registry.refresh)  # the code as it is now, also in a long-lived pytest
        with self._portal.wrap_async_context_manager(bench.session()) as session:
            yield RunMethod(self._portal, session)


def holds_module(folder: Path) -> bool:
    """Whether the folder is a module's."""
    if any((folder / name).is_file() for name in DEFINITIONS):
        return True
    source = find_source(folder, folded(folder.name))
    return source is not None and (source.name == "module.py" or "Module(" in _text(source.parent))


def _text(package: Path) -> str:
    """The code at the top of a package: somewhere in it the module is made."""
    return "\n".join(path.read_text(errors="replace") for path in package.glob("*.py"))
