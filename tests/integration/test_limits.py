"""What bounds a caller: open sessions, calls a second, wrong credentials. The error names bound, value and use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from dataproc.access.failures import LONGEST, STEP, Failures
from dataproc.access.rates import Rates
from dataproc.admission import Admission
from dataproc.clock import ManualClock
from dataproc.errors import Overloaded
from dataproc.settings import Settings
from tests.factories import (
    DATAPROC,
    SESSION,
    World,
    a_call,
    a_world,
    call,
    open_session,
    with_key,
    with_token,
)


def settings(**chosen: object) -> Settings:
    return Settings(_env_file=None, **chosen)  # type: ignore[arg-type]


class TestOpenSessions:
    """Per key, and altogether."""

    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[World]:
        async with a_world(tmp_path, max_sessions_per_key=2, max_sessions=3) as made:
            yield made

    async def test_they_are_bounded(self, world: World) -> None:
        """A close makes room at once; another key is not held back until the server is full."""
        async with AsyncExitStack() as stack:
            one, two = [await stack.enter_async_context(world.client(with_key(await world.key()))) for _ in range(2)]
            tokens = [(await open_session(one))["access_token"] for _ in range(2)]
            error = (await call(one, "session.open_session"))["error"]
            assert error["code"] == -32010
            data = error["data"]
            assert (data["bound"], data["limit"], data["used"], data["retryable"]) == ("open_sessions", 2, 2, True)
            assert "DATAPROC_MAX_SESSIONS_PER_KEY" in error["message"]
            assert data["retry_after"] > 0
            await open_session(two, name="job")
            for params in ({}, {"name": "other"}):
                error = (await call(two, "session.open_session", params))["error"]
                assert (error["data"]["limit"], error["data"]["used"]) == (3, 3)
            await open_session(two, name="job")  # no new session
            await call(one, "session.close_session", [tokens[0]])
            await open_session(two)

    async def test_a_restored_one_counts(self, tmp_path: Path) -> None:
        """Nobody gets more by ending and restoring."""
        async with (
            a_world(tmp_path, max_sessions_per_key=1, grace_period=60) as world,
            world.client(with_key(await world.key())) as client,
        ):
            ended = await open_session(client)
            await call(client, "session.close_session", [ended["access_token"]])
            await open_session(client)
            error = (await call(client, "session.restore_session", [ended["session_id"]]))["error"]
            assert (error["code"], error["data"]["limit"]) == (-32010, 1)


class TestRates:
    """Calls a second of one key."""

    async def test_too_many_are_refused_with_429(self, tmp_path: Path) -> None:
        """As a whole, before they are looked at; other keys go on; files count too."""
        clock = ManualClock()
        async with (
            a_world(tmp_path, clock=clock, request_rate=2, request_burst=4) as world,
            world.client(with_key(await world.key())) as client,
            world.client(with_key(await world.key())) as other,
        ):
            token = (await open_session(client))["access_token"]
            for _ in range(3):
                await call(client, "dataproc.get_server_version")
            refused = await client.post(DATAPROC, content=b"no JSON", headers={"Content-Type": "application/json"})
            assert refused.status_code == 429
            error = refused.json()["error"]
            assert (error["code"], error["data"]["limit"]) == (-32010, "request_rate")
            assert error["data"]["retry_after"] == 0.5
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["id"] is None
            async with world.client(with_token(token)) as inside:
                assert (await inside.get("/api/v1/dataproc/files/")).status_code == 429
            await call(other, "dataproc.get_server_version")
            clock.advance(0.5)
            await call(client, "dataproc.get_server_version")

    async def test_each_call_of_a_batch_counts(self, tmp_path: Path) -> None:
        """A batch is let in as one request, and what comes next waits for all of it."""
        clock = ManualClock()
        async with (
            a_world(tmp_path, clock=clock, request_rate=1, request_burst=2) as world,
            world.client(with_key(await world.key())) as client,
        ):
            batch = [a_call("dataproc.get_server_version", call_id=number) for number in range(5)]
            assert len((await client.post(DATAPROC, json=batch)).json()) == 5
            refused = await client.post(DATAPROC, json=batch[0])
            assert (refused.status_code, refused.json()["error"]["data"]["retry_after"]) == (429, 4.0)

    def test_a_bucket(self) -> None:
        """A burst at once, then the rate; without a rate anything goes."""
        clock = ManualClock()
        rates, free = Rates(clock, settings(request_rate=10)), Rates(clock, settings())
        for _ in range(10):
            rates.charge("a")
        with pytest.raises(Overloaded):
            rates.charge("a")
        for _ in range(30):
            clock.advance(0.1)
            rates.charge("a")
        for _ in range(1000):
            free.charge("a")


class TestWrongCredentials:
    """Slowed down by address."""

    async def test_good_callers_never_wait(self, tmp_path: Path) -> None:
        """A flood of wrong ones from the same address is answered late, with Retry-After; a good one at once."""
        async with a_world(tmp_path, failed_credentials=5, forwarded_allow_ips="127.0.0.1") as world:
            key = await world.key()
            async with world.client(with_token("wrong")) as guesser, world.client(with_key(key)) as good:
                first = [await guesser.post(SESSION, json={}) for _ in range(5)]
                assert not any("retry-after" in reply.headers for reply in first)
                loop = asyncio.get_running_loop()
                begun = loop.time()
                flood = [asyncio.create_task(guesser.post(SESSION, json={})) for _ in range(30)]
                await asyncio.sleep(0)
                assert "result" in await call(good, "session.open_session")
                assert not all(task.done() for task in flood)
                slow = await asyncio.gather(*flood)
                assert loop.time() - begun >= LONGEST - 0.01
                assert {reply.status_code for reply in slow} == {401}
                assert all(reply.headers["retry-after"] for reply in slow)
                elsewhere = await guesser.post(SESSION, json={}, headers={"X-Forwarded-For": "192.0.2.1"})
                assert "retry-after" not in elsewhere.headers
                resolved = await guesser.get("/auth/resolve")
                assert (resolved.status_code, resolved.headers["retry-after"]) == (401, "1")

    async def test_what_is_no_guess_is_not_counted(self, tmp_path: Path) -> None:
        """No credentials at all, and tokens that were good once."""
        async with a_world(tmp_path, failed_credentials=1) as world:
            key = await world.key()
            async with world.client() as nobody, world.client(with_key(key)) as client:
                token = (await open_session(client))["access_token"]
                await call(client, "session.revoke_token", [token])
                async with world.client(with_token(token)) as late:
                    for who in (nobody, late, nobody, late):
                        reply = await who.post(SESSION, json={})
                        assert (reply.status_code, "retry-after" in reply.headers) == (401, False)

    def test_failures_are_forgotten(self) -> None:
        """As many a minute as are allowed."""
        clock = ManualClock()
        failures = Failures(clock, settings(failed_credentials=6))
        assert [failures.note("192.0.2.1") for _ in range(6)] == [0.0] * 6
        assert failures.note("192.0.2.1") == STEP
        assert failures.note("192.0.2.2") == 0
        clock.advance(60)
        assert failures.note("192.0.2.1") == 0

    def test_addresses_of_one_network(self) -> None:
        """A machine has a whole /64 of IPv6; an IPv4 address is its own."""
        failures = Failures(ManualClock(), settings(failed_credentials=1))
        assert [failures.note(f"2001:db8::{n}") > 0 for n in range(1, 4)] == [False, True, True]
        assert failures.note("2001:db8:0:1::1") == 0
        assert [failures.note(f"::ffff:192.0.2.{n}") for n in range(1, 4)] == [0, 0, 0]


async def test_a_full_share_of_the_queue_holds_up_nobody_else() -> None:
    """However many calls of one key wait, another's gets the slot after next, and its own share of the queue."""
    admission = Admission(settings(concurrent_runs=1, queue_limit=100, queue_share=0.25))
    running = admission.enter("greedy", "s")
    waiting = [admission.enter("greedy", "s") for _ in range(25)]
    with pytest.raises(Overloaded) as refused:
        admission.enter("greedy", "s")
    assert (refused.value.data["limit"], refused.value.data["used"]) == (25, 25)
    modest = admission.enter("modest", "t")
    assert admission.position(modest) == 2
    admission.leave(running, 0.01)
    assert await admission.wait(waiting[0])
    admission.leave(waiting[0], 0.01)
    assert await asyncio.wait_for(admission.wait(modest), 5)
