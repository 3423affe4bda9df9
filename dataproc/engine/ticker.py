"""One timer for many: what has to be looked at from time to time while there is anything of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Ticker:
    """Looks every so many seconds, from `wake` on until there is nothing left to look at.

    A timer for each run, made and cancelled, would cost a short one more than its log, its limits and its place in the
    queue together.
    """

    __slots__ = ("_look", "_seconds", "_timer")

    def __init__(self, seconds: float, look: Callable[[], bool]) -> None:
        """look: whether there is still something."""
        self._seconds, self._look = seconds, look
        self._timer: asyncio.TimerHandle | None = None

    @property
    def awake(self) -> bool:
        """Whether there was something at the last look, or came since."""
        return self._timer is not None

    def wake(self) -> None:
        """There is something from now on."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._look():
            self.wake()
