"""The event loop on which a module's `async def` methods run."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio  # a quarter of a bare worker's import time; most modules have no coroutine


class Loop:
    """One loop a process, made at first need (so never before a fork) and kept, so that clients in `ctx.cache` live on.

    Tasks that a call leaves behind are cancelled before its reply.
    """

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What the coroutine returns, or its exception."""
        import asyncio

        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            return self._runner.run(_alone(coroutine))
        except Exception:
            raise
        except BaseException:  # the loop may have been left in the middle of a step
            self.close()
            raise

    def close(self) -> None:
        """Close the loop, if there is one."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()


async def _alone(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio

    try:
        return await coroutine
    finally:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
