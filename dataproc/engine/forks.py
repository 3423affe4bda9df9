"""What becomes of a worker's own ways in the processes that a method forks. Standard library only."""

from __future__ import annotations

import os
import signal
import threading


class Forks:
    """A process that a method forks dies of SIGTERM as any other: pools end theirs so, and wait until they are gone.

    The worker's exception would be lost there wherever Python swallows exceptions, in the first moments of a fork above
    all. So until its first moments are over the signal waits.
    """

    def __init__(self) -> None:
        self._blocked = threading.local()

    def register(self) -> None:
        """From now on, for good."""
        os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._in_child)

    def _before(self) -> None:
        self._blocked.before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))

    def _after(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked.before)

    def _in_child(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._after()
