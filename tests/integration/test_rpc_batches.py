"""Batches and notifications over HTTP: at once, in one session, and on after the reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from dataproc.executor import Call
from dataproc.runs import Completed, Outcome
from tests.factories import DATAPROC, World, a_call, a_world, an_exec, append, with_key

VERSION = "dataproc.get_server_version"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, concurrent_runs=8, batch_limit=50) as made:
        yield made


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client(with_key(await world.key())) as made:
        yield made


async def test_a_batch_runs_its_calls_at_once(tmp_path: Path) -> None:
    """Calls of one batch meet each other, and the answers come in their order."""
    together = asyncio.Barrier(4)

    async def meet(call: Call, folder: Path) -> Outcome:
        await asyncio.wait_for(together.wait(), 10)
        return Completed(call.params["n"])

    async with (
        a_world(tmp_path, {"plain": {"meet": meet}}, concurrent_runs=4) as world,
        world.client(with_key(await world.key())) as client,
    ):
        batch = [an_exec("meet", params={"n": n}) | {"id": n} for n in range(8)]
        answers = (await client.post(DATAPROC, json=batch)).json()
    assert [(answer["id"], answer["result"]) for answer in answers] == [(n, n) for n in range(8)]


async def test_a_batch_without_a_token_is_one_session(world: World, client: httpx.AsyncClient) -> None:
    """The calls of a batch share the one-shot session, which ends with the batch."""
    answers = (await client.post(DATAPROC, json=[an_exec(), an_exec(), an_exec()])).json()
    assert sorted(answer["result"] for answer in answers) == [1, 2, 3]
    assert len({call.session for call in world.executor.calls}) == 1
    assert world.directories() == []


async def test_a_batch_above_the_limit(world: World, client: httpx.AsyncClient) -> None:
    """A batch is bounded in calls."""
    answer = (await client.post(DATAPROC, json=[a_call(VERSION)] * 51)).json()
    assert (answer["error"]["code"], answer["error"]["data"]["limit"]) == (-32600, 50)


async def test_an_idempotency_key_belongs_to_one_call(client: httpx.AsyncClient) -> None:
    """The header on a batch of two is refused as a whole, on a batch of one it is the call's."""
    sent = {"Idempotency-Key": "k"}
    two = (await client.post(DATAPROC, json=[a_call(VERSION)] * 2, headers=sent)).json()
    assert (two["error"]["code"], two["id"]) == (-32600, None)
    one = (await client.post(DATAPROC, json=[a_call(VERSION)], headers=sent)).json()
    assert one[0]["result"]


async def test_a_notification_runs_on(tmp_path: Path) -> None:
    """204 comes while the call is still under way, and a stop of the server lets it finish."""
    go, ran = asyncio.Event(), asyncio.Event()

    async def slow(call: Call, folder: Path) -> Outcome:
        await go.wait()
        ran.set()
        return Completed(True)

    async with a_world(tmp_path, {"plain": {"slow": slow, "append": append}}) as world:
        key = await world.key()
        async with world.app.router.lifespan_context(world.app), world.client(with_key(key)) as client:
            notification = {name: value for name, value in an_exec("slow").items() if name != "id"}
            response = await asyncio.wait_for(client.post(DATAPROC, json=notification), 10)
            assert (response.status_code, response.content, ran.is_set()) == (204, b"", False)
            mixed = (await client.post(DATAPROC, json=[notification, an_exec()])).json()
            assert mixed[0]["result"] == 1
            go.set()
        assert ran.is_set()
        assert world.directories() == []


async def test_a_failing_notification_is_silent(client: httpx.AsyncClient) -> None:
    """Errors of notifications have nobody to be told to."""
    bad = [{"jsonrpc": "2.0", "method": "no.such"}, {"jsonrpc": "2.0", "method": "dataproc.exec", "params": {}}]
    for body in (bad[0], bad[1], bad):
        assert (await client.post(DATAPROC, json=body)).status_code == 204
