"""What the administrator's verbs stand on: the database itself, beside a running server or without one."""

from __future__ import annotations

import asyncio
import getpass
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dataproc.cli.problems import load_settings
from dataproc.clock import SystemClock
from dataproc.database import Database
from dataproc.telemetry import configure_logging
from dataproc.types import Actor

T = TypeVar("T")


def with_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """What `work` finds or does in the database that the settings name."""
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    logging.getLogger("dataproc.audit").setLevel(logging.CRITICAL)  # the table has it; people look at the output

    async def run() -> T:
        database = await Database.open(settings.database, SystemClock())
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


def operator() -> Actor:
    """Who sits at the command line, for the audit log."""
    try:
        return Actor(f"operator:{getpass.getuser()}")
    except (KeyError, OSError):  # a uid without a name
        return Actor("operator")
