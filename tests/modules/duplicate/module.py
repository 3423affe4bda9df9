"""Defines one method twice."""

from dataproc import Module

module = Module("duplicate")


@module.method("run")
def first() -> int:
    return 1


@module.method("run")
def second() -> int:
    return 2
