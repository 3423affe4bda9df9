"""Asks not to be forked after its import."""

from __future__ import annotations

import os

from dataproc import Module

IMPORTED_BY = os.getpid()

module = Module("fresh", fork=False)


@module.method("imported-by")
def imported_by() -> str:
    """Which process imported this file."""
    return "the worker" if os.getpid() == IMPORTED_BY else "another"
