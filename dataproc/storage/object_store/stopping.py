"""The end of a server whose store does not answer: it is waited for, but not for long."""

from __future__ import annotations

import asyncio
import math
import time

from dataproc.storage.object_store.objects import Objects

SILENCE = 5.0  # seconds without any answer of the store after which a stop does not wait for it


class Hurry:
    """From some time on, gives up what is asked of a store that is silent. One that answers is waited for."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._begins = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, after: float) -> None:
        """In so many seconds, or as was said before if that is sooner."""
        begins = time.monotonic() + after
        if begins < self._begins:
            self.end()
            self._begins = begins
            self._look()

    def end(self) -> None:
        """Nothing is asked of the store any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        left = max(self._begins, self._objects.answered) + SILENCE - time.monotonic()
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._look)
        else:
            self._objects.give_up()
