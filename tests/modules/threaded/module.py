"""Has threads running when it is forked, and asks for a fresh interpreter instead."""

from __future__ import annotations

import threading

from dataproc import Module

module = Module("threaded", version="1.0.0", description="Cannot be forked.", fork=False)

_asked, _answered = threading.Event(), threading.Event()


def _serve() -> None:
    while _asked.wait():
        _asked.clear()
        _answered.set()


threading.Thread(target=_serve, daemon=True).start()


@module.method
def answer() -> bool:
    """Whether the thread that was started at import is there."""
    _answered.clear()
    _asked.set()
    return _answered.wait(10)
