"""Submitted runs through the clients, against the real server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from xdata_dataproc import AsyncClient, Client, errors
from xdata_dataproc.client import ApiV2

from tests.security.conftest import Server, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(None, ["worker", "echo"], SANDBOX="auto") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, server.key["APIKey"], server.key["Secret"]) as made:
        yield made


def test_a_run_is_submitted_and_asked_for(client: Client) -> None:
    """Result, status, log and events of a run, also by its id from elsewhere."""
    with client.open_session() as session:
        run = session.submit("worker.count", steps=2)
        assert run.result(30) == 2
        assert (run.status(), run.log()) == ("completed", "step 1\nstep 2\n")
        told = list(session.run(run.id).events())
        assert [event.id for event in told] == list(range(1, len(told) + 1))
        assert told[-1].data["status"] == "completed"
        assert list(run.events(after=told[-2].id)) == told[-1:]
        assert run.info()["changes"]["created"][0]["path"] == "step-1.txt"


def test_a_run_that_fails_raises_as_a_call_does(client: Client) -> None:
    """The same class, with the run's id."""
    with client.open_session() as session:
        run = session.submit("echo.fail")
        with pytest.raises(errors.ExecFailed) as failed:
            run.result(30)
        assert failed.value.run_id == run.id
        with pytest.raises(errors.NotFound):
            session.run("unknown").status()
        with pytest.raises(errors.NotFound):
            list(session.run("unknown").events())


def test_waiting_ends_and_the_run_does_not(client: Client) -> None:
    """A timeout is a TimeoutError; a cancel is told to who waits."""
    with client.open_session() as session:
        run = session.submit("worker.until", name="never")
        with pytest.raises(TimeoutError):
            run.result(timeout=0.1)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(run.result, 30)
            run.cancel()
            assert isinstance(waiting.exception(30), errors.ExecCancelled)


def test_without_a_session(client: Client, server: Server) -> None:
    """With the key alone the run has a session of its own; under one idempotency key it is one run."""
    first = client.submit("echo.echo", value=1, idempotency_key="one")
    assert client.submit("echo.echo", value=1, idempotency_key="one").id == first.id
    assert first.result(30) == 1
    api = ApiV2(f"{server.url}/api/v1/dataproc/jsonrpc", apikey=server.key["APIKey"], secret=server.key["Secret"])
    assert api.submit("echo", "echo", params={"value": 2}).result(30) == 2
    api.close()


async def test_the_same_awaited(server: Server) -> None:
    """Calls, runs and events for asyncio."""
    async with (
        AsyncClient(server.url, server.key["APIKey"], server.key["Secret"]) as client,
        await client.open_session() as session,
    ):
        assert await session.exec("echo.echo", value=3) == 3
        run = await session.submit("worker.count", steps=1)
        kinds = [event.kind async for event in run.events()]
        assert kinds[0] == kinds[-1] == "state"
        assert (await run.result(30), await run.status(), await run.log()) == (1, "completed", "step 1\n")
        assert await (await client.submit("echo.echo", value=4)).result(30) == 4
