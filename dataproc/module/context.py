"""`Context`: what a running method is given besides its params."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dataproc.module.log import Logger

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from fsspec.implementations.dirfs import DirFileSystem

LOCK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
MESSAGE_LIMIT = 1000  # characters of a progress message
LOCK_POLL = 0.01  # seconds between looks at a lock that another run holds
PROGRESS_BURST = 10
PROGRESS_RATE = 20.0  # reports a second, after the burst
_NONE: Mapping[str, Path] = MappingProxyType({})


def _ignored(report: dict[str, Any]) -> None:
    """Progress that nobody follows."""


def _never() -> bool:
    return False


class Context:
    """One run's surroundings. In a worker all paths are fixed places: `/session`, `/application`, `/work`.

    session: the session directory, shared by every run of the session and reachable from no other.
    work: empty at the start, and emptied after the run; also TMPDIR, HOME and the working directory.
    input, output: declared names and their paths.
    cache: lives as long as the warm worker of this session and module: a hint, never the only copy.
    log: structured logger; what is printed is kept with the run too.
    run_id, session_id: for log lines and names of files.
    """

    __slots__ = (
        "_allowance",
        "_application",
        "_cancelled",
        "_counted_at",
        "_fs",
        "_held",
        "_locks",
        "_report",
        "cache",
        "input",
        "log",
        "output",
        "run_id",
        "session",
        "session_id",
        "work",
    )

    def __init__(
        self,
        session: Path,
        *,
        work: Path | None = None,
        application: Path | None = None,
        input: Mapping[str, Path] = _NONE,  # noqa: A002 - the contract's name
        output: Mapping[str, Path] = _NONE,
        run_id: str = "",
        session_id: str = "",
        cache: dict[str, Any] | None = None,
        locks: Path | None = None,
        report: Callable[[dict[str, Any]], None] = _ignored,
        cancelled: Callable[[], bool] = _never,
    ) -> None:
        self.session, self.work, self._application = session, work if work is not None else session, application
        self.input, self.output = input, output
        self.run_id, self.session_id = run_id, session_id
        self.cache: dict[str, Any] = {} if cache is None else cache
        self.log = Logger()
        self._locks, self._report, self._cancelled = locks, report, cancelled
        self._held: dict[str, BaseFileLock] = {}
        self._fs: DirFileSystem | None = None
        self._allowance, self._counted_at = float(PROGRESS_BURST), 0.0

    @property
    def application(self) -> Path:
        """The folder kept for the module across the sessions of one key; LookupError where the run has none."""
        if self._application is None:
            raise LookupError("this run has no application directory")
        return self._application

    @property
    def fs(self) -> DirFileSystem:
        """The session directory as an fsspec filesystem rooted there. A convenience; the sandbox is the wall."""
        if self._fs is None:
            from fsspec.implementations.dirfs import DirFileSystem
            from fsspec.implementations.local import LocalFileSystem

            self._fs = DirFileSystem(path=str(self.session), fs=LocalFileSystem())
        return self._fs

    @property
    def cancelled(self) -> bool:
        """Whether the caller asked the run to end. Look at it in long loops, and return."""
        return self._cancelled()

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell pollers how far the run is: 0 to 1, and a short text. Call it as often as you like."""
        if not isinstance(fraction, int | float) or not math.isfinite(fraction) or not 0 <= fraction <= 1:
            raise ValueError(f"fraction must be a number from 0 to 1, not {fraction!r}")
        now = time.monotonic()
        self._allowance = min(PROGRESS_BURST, self._allowance + (now - self._counted_at) * PROGRESS_RATE)
        self._counted_at = now
        if self._allowance < 1 and fraction < 1:
            return
        self._allowance -= 1
        self._report({"fraction": float(fraction), "message": str(message)[:MESSAGE_LIMIT]})

    def lock(self, name: str, timeout: float = -1) -> BaseFileLock:
        """A lock that the session's other runs respect, in any process of the node: `with ctx.lock("table"): ...`.

        timeout: seconds to wait; -1 waits as long as the run may. Nested use of one name in one run does not block.
        """
        if not LOCK_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a lock: letters, digits, '_', '-' and '.', at most 100")
        if self._locks is None:
            raise LookupError("this run has no folder for locks")
        if (lock := self._held.get(name)) is None:
            from filelock import FileLock

            lock = self._held[name] = FileLock(self._locks / f"{name}.lock", poll_interval=LOCK_POLL)
        lock.timeout = timeout
        return lock
