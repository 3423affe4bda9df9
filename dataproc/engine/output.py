"""What a run prints: kept up to a bound in a file that is made at the first byte, the rest counted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path


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
