"""When to look at the modules directory again: at once where the kernel tells of changes, else every second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import structlog
from watchfiles import awatch

LOOK_ANYWAY = 5_000  # ms: links that lead out of the folder, and file systems that tell nothing
POLL = 1.0  # s, where nothing can be watched
QUIET = 100  # ms without a change, before it is believed to be whole

log = structlog.get_logger(__name__)


async def changes(folder: Path) -> AsyncGenerator[None, None]:
    """Yields whenever there may be something new, for ever."""
    told = False
    while True:
        try:
            async for _ in awatch(
                folder, debounce=1_600, step=QUIET, rust_timeout=LOOK_ANYWAY, yield_on_timeout=True, recursive=True
            ):
                yield
        except (OSError, RuntimeError) as error:  # no such folder yet, or no watches left
            if not told:
                log.warning("modules.not_watched", error=type(error).__name__, poll=POLL)
                told = True
        await asyncio.sleep(POLL)
        yield
