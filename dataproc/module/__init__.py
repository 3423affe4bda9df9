"""The author API, and what a worker needs to serve it: standard library and pydantic, nothing of the server."""

from dataproc.module.broken import ModuleBroken
from dataproc.module.context import Context
from dataproc.module.generation import Generation
from dataproc.module.load import load
from dataproc.module.method import Method, Options
from dataproc.module.module import Module
from dataproc.module.reply import NotJson, Raised, Refused, Reply, Returned

__all__ = [
    "Context",
    "Generation",
    "Method",
    "Module",
    "ModuleBroken",
    "NotJson",
    "Options",
    "Raised",
    "Refused",
    "Reply",
    "Returned",
    "load",
]
