"""Real processes to try the walls in: what is put in force cannot be taken back, so each try gets a fork of its own."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from dataproc.engine import syscalls

PLAIN_UID = 64999


class Forked:
    """Calls a function in a forked child and hands its result back; `uid` is what the child becomes first."""

    def __init__(self, uid: int | None) -> None:
        self.uid = uid

    def __call__(self, function: Callable[[], Any]) -> Any:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            self._child(function, write)
        os.close(write)
        with os.fdopen(read, "rb") as answer:
            told = answer.read()
        _, status = os.waitpid(pid, 0)
        if not told:
            return os.waitstatus_to_exitcode(status)
        worked, value = pickle.loads(told)  # written by our own fork
        if not worked:
            raise AssertionError(f"the child failed:\n{value}")
        return value

    def _child(self, function: Callable[[], Any], write: int) -> None:
        try:
            if self.uid is not None and os.getuid() == 0:
                os.setgroups([])
                os.setresgid(self.uid, self.uid, self.uid)
                os.setresuid(self.uid, self.uid, self.uid)
                syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)  # or /proc/self would be root's
            told = pickle.dumps((True, function()))
        except BaseException:
            told = pickle.dumps((False, traceback.format_exc()))
        os.write(write, told)
        os._exit(0)


@pytest.fixture(params=[None, PLAIN_UID], ids=["as we are", "plain user"])
def forked(request: pytest.FixtureRequest) -> Forked:
    """Runs a function in a fork: once as the user of the tests, once as an unprivileged one."""
    return Forked(request.param)
