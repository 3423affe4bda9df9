"""One run: the servers that its scenarios share, started when first asked for, ended when it is over."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.harness import Options, Skipped
from benchmarks.ours import SERVE, Ours, ours
from benchmarks.peers import PEERS, Peer, missing, peer


class Bench:
    """`options` and servers, for `with`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._stack = ExitStack()
        self._peers: dict[str, Peer] = {}
        self._ours: Ours | None = None
        self.folder = Path()

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, raised, trace)

    @property
    def ours(self) -> Ours:
        """The server that most scenarios share."""
        if self._ours is None:
            self._ours = self._stack.enter_context(ours(self.folder / "ours"))
        return self._ours

    def another(self, name: str, command: Sequence[str] = SERVE, **settings: str) -> Ours:
        """A server of a scenario's own; `settings` without the prefix."""
        return self._stack.enter_context(ours(self.folder / name, command, **settings))

    def peers(self, names: tuple[str, ...]) -> dict[str, Peer]:
        """Those of the named peers whose packages are here, up."""
        for name in names:
            if name not in self._peers and missing(name) is None:
                self._peers[name] = self._stack.enter_context(peer(name, self.folder))
        return {name: self._peers[name] for name in names if name in self._peers}


def absent(scenario: str, names: tuple[str, ...] = tuple(PEERS)) -> list[Skipped]:
    """A loud row for each named peer that cannot run here."""
    packages = {name: missing(name) for name in names}
    return [
        Skipped(scenario, f"{name}: package `{package}` is not installed; pip install {package}")
        for name, package in packages.items()
        if package
    ]
