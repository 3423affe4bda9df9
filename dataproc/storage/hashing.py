"""The SHA-256 of files, in short steps of few threads: others have their turns meanwhile, and a stop need not wait.

A file of ten gigabytes takes ten seconds, and one that is all holes takes a module nothing to make: hashed in one go,
a handful of them would hold every thread of the server.
"""

from __future__ import annotations

import asyncio
import hashlib

from dataproc.storage.files import Reading

AT_ONCE = 2  # threads
STEP = 2**26  # bytes that one thread hashes before it is another file's turn
_BLOCK = 2**20


class Hashing:
    """All that is hashed for records and requests of one server."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def sha256(self, reading: Reading) -> bytes:
        """The digest of an open file, as long as it was when it was opened. Raises OSError."""
        steps = _Steps(reading)
        while steps.left:
            async with self._turns:
                await asyncio.to_thread(steps.step)
        return steps.digest.digest()


class _Steps:
    def __init__(self, reading: Reading) -> None:
        self.digest = hashlib.sha256()
        self.left = reading.entry.size
        self._reading = reading
        self._at = 0

    def step(self) -> None:
        ends = self._at + STEP
        while self._at < ends and self.left:
            block = self._reading.pread(min(_BLOCK, self.left), self._at)
            self.digest.update(block)
            self._at += len(block)
            self.left = self.left - len(block) if block else 0  # it was cut short
