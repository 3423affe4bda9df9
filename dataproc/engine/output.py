"""What a run prints: kept up to a bound in a file that is made at the first byte, the rest counted."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import termios
from collections.abc import Callable
from pathlib import Path

CHUNK, WIDE_PIPE = 2**16, 2**20
READS = 16  # of a pipe, before others get their turn
PAUSE = 0.005  # seconds between looks at output that is only counted: a flood waits, the server does not


class Output:
    """The log of one run. A silent run makes no file. `told` is called with the bytes there are when there are more."""

    def __init__(self, folder: Path, run: str, limit: int, told: Callable[[int], None] | None = None) -> None:
        self.folder, self.run, self.limit, self.told = folder, run, limit, told
        self.kept = self.dropped = 0
        self._file: int | None = None

    @property
    def path(self) -> Path:
        """Where it is kept; ids begin with the time, so their last digits spread them over folders."""
        return self.folder / self.run[-2:] / f"{self.run}.log"

    @property
    def full(self) -> bool:
        """Whether more is only counted."""
        return self.kept >= self.limit

    def write(self, data: bytes) -> None:
        """Keep what fits; a disk that is full loses the log, never the run."""
        fits = data[: self.limit - self.kept]
        try:
            if fits and self._file is None:
                path = self.path
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            if fits and self._file is not None:
                self.kept += os.write(self._file, fits)
                if self.told is not None:
                    self.told(self.kept)
        except OSError:
            fits = b""
        self.dropped += len(data) - len(fits)

    def close(self) -> None:
        """Say at the end what is missing."""
        if self._file is None:
            return
        if self.dropped:
            note = f"\n[{self.dropped} more bytes were dropped; the limit is {self.limit}]\n"
            with contextlib.suppress(OSError):
                os.write(self._file, note.encode())
        os.close(self._file)
        self._file = None


class Drain:
    """The reading end of a worker's pipe: what comes goes to `output`, the run's that is under way."""

    def __init__(self, pipe: int) -> None:
        self.output: Output | None = None
        self._loop = asyncio.get_running_loop()
        self._pipe: int | None = pipe
        self._waiting = array.array("i", [0])  # bytes in the pipe
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self.look)

    def catch_up(self) -> None:
        """Take what a run that has just ended has printed: mostly nothing, which is quickly asked."""
        if self._pipe is not None:
            fcntl.ioctl(self._pipe, termios.FIONREAD, self._waiting)
            if self._waiting[0]:
                self.look()

    def look(self) -> None:
        """Take what is there, up to a bound."""
        if (pipe := self._pipe) is None:
            return
        came = False
        with contextlib.suppress(BlockingIOError):
            for _ in range(READS):
                if not (data := os.read(pipe, CHUNK)):
                    self._loop.remove_reader(pipe)  # every writer has gone
                    return
                came = True
                if self.output is not None:
                    self.output.write(data)
        if came and (self.output is None or self.output.full):
            self._flooded(pipe)

    def _flooded(self, pipe: int) -> None:
        """What comes now is only counted: look from time to time instead of at every byte."""
        self._loop.remove_reader(pipe)
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, WIDE_PIPE)
        self._loop.call_later(PAUSE, self._again)

    def _again(self) -> None:
        if self._pipe is not None:
            self._loop.add_reader(self._pipe, self.look)

    def close(self) -> None:
        """Take the rest, and close."""
        self.look()
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None
