"""The friendly client for asyncio: the same calls, awaited. They run in threads of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from xdata_dataproc.runs import Event, Run
from xdata_dataproc.session import Client, Session

THREADS = 256  # calls at once
T = TypeVar("T")
_threads = ThreadPoolExecutor(THREADS, "dataproc-client")


async def _in_thread(work: Callable[..., T], *given: Any, **named: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads, lambda: work(*given, **named))


class AsyncClient:
    """As `Client`, for `async with`; made of the same arguments."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.client = Client(*given, **named)

    async def open_session(self, expires_in: int | None = None, **ours: Any) -> AsyncSession:
        """As `Client.open_session`."""
        return AsyncSession(await _in_thread(self.client.open_session, expires_in, **ours))

    def session(self, token: str | None = None) -> AsyncSession:
        """As `Client.session`."""
        return AsyncSession(self.client.session(token))

    async def exec(self, method: str, params: Mapping[str, Any] | None = None, /, **named: Any) -> Any:
        """As `Client.exec`."""
        return await _in_thread(self.client.exec, method, params, **named)

    async def submit(self, method: str, params: Mapping[str, Any] | None = None, /, **named: Any) -> AsyncRun:
        """As `Client.submit`."""
        return AsyncRun(await _in_thread(self.client.submit, method, params, **named))

    async def close(self) -> None:
        """As `Client.close`."""
        await _in_thread(self.client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncSession:
    """As `Session`, for `async with`. `session` is the other face, with its files."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.token = session.token

    async def exec(self, method: str, params: Mapping[str, Any] | None = None, /, **named: Any) -> Any:
        """As `Session.exec`."""
        return await _in_thread(self.session.exec, method, params, **named)

    async def submit(self, method: str, params: Mapping[str, Any] | None = None, /, **named: Any) -> AsyncRun:
        """As `Session.submit`."""
        return AsyncRun(await _in_thread(self.session.submit, method, params, **named))

    async def close(self) -> None:
        """As `Session.close`."""
        await _in_thread(self.session.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await _in_thread(self.session.__exit__, *raised)


class AsyncRun:
    """As `Run`, awaited."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.id = run.id

    async def info(self) -> dict[str, Any]:
        """As `Run.info`."""
        return await _in_thread(self.run.info)

    async def status(self) -> str:
        """As `Run.status`."""
        return await _in_thread(self.run.status)

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - as of `Run.result`
        """As `Run.result`."""
        return await _in_thread(self.run.result, timeout)

    async def cancel(self) -> None:
        """As `Run.cancel`."""
        await _in_thread(self.run.cancel)

    async def log(self) -> str:
        """As `Run.log`."""
        return await _in_thread(self.run.log)

    async def events(self, after: int = 0) -> AsyncIterator[Event]:
        """As `Run.events`."""
        found = self.run.events(after)
        while (event := await _in_thread(next, found, None)) is not None:
            yield event
