"""An empty run through the worker's own code, ahead of need.

In the zygote, before it forks: what the interpreter learns and touches then is shared by all workers, and costs none of
them time or memory. In a spare worker, before it has a session: what is touched for the first time after a fork is
copied, page by page, and a first call would wait for that. Standard library and the author's API only.
"""

from __future__ import annotations

import os
import socket
import tempfile

from dataproc.engine import confine, frames, landlock
from dataproc.engine import syscalls as sys_
from dataproc.engine.child import PREVIEW, Code, Worker

TIMES = 20  # the interpreter specialises what it has run more often than a dozen times
STAGE = "/tmp/rehearsal"  # noqa: S108 - of the worker's own /tmp


class Rehearsal:
    """Made once a zygote."""

    def __init__(self) -> None:
        from dataproc.module import Module

        self._code, module = Code(None), Module("rehearsal")

        @module.method
        def nothing(count: int = 0) -> dict[str, int]:
            return {"count": count}

        module.prepare()
        self._code.module = module

    def of_all(self, walls: confine.Walls) -> None:
        """For the zygote."""
        with tempfile.TemporaryDirectory() as folder:
            self._play(os.path.realpath(folder), TIMES)
            for _ in range(TIMES):
                sys_.prctl(sys_.PR_CAPBSET_READ, 0)
                if walls.landlock:
                    rules = landlock.Ruleset(confine.known(walls))
                    rules.add(confine.own(confine.Places({"session": folder})))
                    rules.close()

    def of_one(self) -> None:
        """For a worker that has a /tmp of its own. What `of_all` does besides is done there for real."""
        os.mkdir(STAGE)
        self._play(STAGE, 1)
        os.rmdir(STAGE)

    def _play(self, folder: str, times: int) -> None:
        here, there = socket.socketpair()
        log = os.dup(2)
        with here, there:
            told = {"session": "", "result_limit": PREVIEW, "result_max": PREVIEW}
            worker = Worker(here, log, told, dict.fromkeys(("session", "work", "locks"), folder), self._code)
            for _ in range(times):
                run = {"op": "run", "run": "0", "method": "nothing", "params": {}, "input": {}, "output": {}}
                frames.send(there, run)
                worker.run(next(frames.listen(here)))
                frames.receive(there)
        os.close(log)
        os.chdir("/")
