"""A module whose workers die where they wait for a session."""

from __future__ import annotations

import os

from dataproc.engine.rehearsal import Rehearsal
from dataproc.module import Module

module = Module("spareless")


def _die(_: Rehearsal) -> None:
    os.write(2, b"a spare died\n")
    os._exit(1)


Rehearsal.of_one = _die


@module.method
def nothing() -> None:
    """Does nothing."""
