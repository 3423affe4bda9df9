"""The lives of sessions over HTTP: both clocks, names, extensions, grace and restore, what a tombstone says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dataproc.clock import ManualClock
from dataproc.executor import Call
from dataproc.runs import Completed, Outcome
from tests.factories import DATAPROC, World, a_world, an_exec, call, open_session, with_key, with_token

DAY = 86400


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def world(tmp_path: Path, clock: ManualClock) -> AsyncIterator[World]:
    lives: dict[str, Any] = {"grace_period": 100, "max_expires_in": 1000, "default_expires_in": 500}
    async with a_world(tmp_path, clock=clock, gateway_secret="g" * 32, max_extensions=2, **lives) as made:
        yield made


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client(with_key(await world.key())) as made:
        yield made


async def reap(world: World) -> None:
    """Let the reaper look once, and end what is due."""
    await world.reaper.look()
    await world.reaper.settle()


async def code_of(client: httpx.AsyncClient, method: str, params: Any = None) -> int:
    return int((await call(client, method, params))["error"]["code"])


async def state(client: httpx.AsyncClient, session_id: str) -> tuple[str, str | None]:
    view = (await call(client, "session.get_session", {"session_id": session_id}))["result"]
    return view["state"], view["reason"]


class TestClocks:
    """The fixed one and the idle one."""

    async def test_use_winds_the_idle_clock(self, world: World, client: httpx.AsyncClient, clock: ManualClock) -> None:
        """A run and keep_alive are activity, looking is not; when it runs out the session is over, noticed or not."""
        opened = await open_session(client, idle_timeout=60)
        async with world.client(with_token(opened["access_token"])) as inside:
            for wind in (inside.post(DATAPROC, json=an_exec()), call(inside, "session.keep_alive")):
                clock.advance(50)
                await wind
                await reap(world)
            clock.advance(50)
            assert (await call(inside, "session.get_session"))["result"]["idle_expires_in"] == 10
            await reap(world)
            clock.advance(10)
            refused = await inside.post(DATAPROC, json=an_exec())
        assert (refused.status_code, refused.json()["error"]["data"]["reason"]) == (401, "idle")
        assert await state(client, opened["session_id"]) == ("closing", "idle")
        await reap(world)
        assert await state(client, opened["session_id"]) == ("ended", "idle")

    async def test_a_run_keeps_it_busy(self, tmp_path: Path, clock: ManualClock) -> None:
        """However long it runs; its end is activity too."""
        begun, go = asyncio.Event(), asyncio.Event()

        async def slow(call: Call, folder: Path) -> Outcome:
            begun.set()
            await go.wait()
            return Completed("done")

        async with (
            a_world(tmp_path, {"plain": {"slow": slow}}, clock) as world,
            world.client(with_key(await world.key())) as client,
        ):
            opened = await open_session(client, idle_timeout=10)
            async with world.client(with_token(opened["access_token"])) as inside:
                running = asyncio.create_task(inside.post(DATAPROC, json=an_exec("slow")))
                await asyncio.wait_for(begun.wait(), 5)
                for _ in range(3):
                    clock.advance(9)
                    await reap(world)
                view = (await call(inside, "session.get_session"))["result"]
                assert (view["running"], view["idle_expires_in"]) == (1, 10)
                go.set()
                assert (await running).json()["result"] == "done"
                clock.advance(9)
                assert "result" in await call(inside, "session.keep_alive")

    async def test_keep_alive_moves_the_idle_clock_alone(self, client: httpx.AsyncClient, clock: ManualClock) -> None:
        """The fixed clock goes on; a session without an idle clock says null."""
        one, other = await open_session(client, idle_timeout=60), await open_session(client)
        clock.advance(30)
        kept = await call(client, "session.keep_alive", {"token": one["access_token"]})
        assert kept["result"] == {"expires_in": 470, "idle_expires_in": 60}
        kept = await call(client, "session.keep_alive", [other["access_token"]])
        assert kept["result"] == {"expires_in": 470, "idle_expires_in": None}

    async def test_a_life_is_extended_from_now(self, client: httpx.AsyncClient, clock: ManualClock) -> None:
        """Within the longest life and as often as is allowed; what is no longer than before costs nothing."""
        opened = await open_session(client, expires_in=100)
        token = opened["access_token"]
        clock.advance(90)
        shorter = await call(client, "session.extend_session", {"expires_in": 5, "token": token})
        assert shorter["result"] == {"expires_in": 10, "idle_expires_in": None}
        for life in (100, 200):
            longer = await call(client, "session.extend_session", [life, token])
            assert longer["result"]["expires_in"] == life
        refused = (await call(client, "session.extend_session", [300, token]))["error"]
        assert (refused["code"], refused["data"]["quota"]) == (-32009, "extensions")
        assert (refused["data"]["limit"], refused["data"]["used"]) == (2, 2)

    async def test_no_extension_goes_beyond_the_longest_life(
        self, client: httpx.AsyncClient, clock: ManualClock
    ) -> None:
        """It is cut there; once there, nothing is left to be had."""
        token = (await open_session(client, expires_in=800))["access_token"]
        clock.advance(700)
        cut = await call(client, "session.extend_session", [1000, token])
        assert cut["result"]["expires_in"] == 300
        refused = (await call(client, "session.extend_session", [1000, token]))["error"]
        assert (refused["code"], refused["data"]["errors"][0]["loc"]) == (-32602, ["expires_in"])

    async def test_a_key_s_end_is_its_sessions_end(self, world: World, clock: ManualClock) -> None:
        """An extension cannot outlive the key."""
        async with world.client(with_key(await world.key(expires_in=200))) as client:
            token = (await open_session(client, expires_in=100))["access_token"]
            longer = await call(client, "session.extend_session", [900, token])
            assert longer["result"]["expires_in"] == 200

    @pytest.mark.parametrize("jump", [10 * DAY, -10 * DAY])
    async def test_a_jump_of_the_clock(
        self, world: World, client: httpx.AsyncClient, clock: ManualClock, jump: int
    ) -> None:
        """Nothing ends by it and nothing comes back."""
        living, dead = await open_session(client, idle_timeout=60), await open_session(client, expires_in=1)
        clock.advance(2)
        clock.jump(jump)
        await reap(world)
        assert await state(client, living["session_id"]) == ("open", None)
        assert await state(client, dead["session_id"]) == ("ended", "expired")


class TestNames:
    """Get or create."""

    async def test_a_name_answers_its_live_session(self, world: World, client: httpx.AsyncClient) -> None:
        """With a fresh token, of the scopes that are asked for now."""
        first = await open_session(client, name="job", labels={"a": "b"})
        second = await open_session(client, name="job", scopes=["files.read"])
        assert second["session_id"] == first["session_id"]
        assert (first["created"], second["created"]) == (True, False)
        assert second["access_token"] != first["access_token"]
        async with world.client(with_token(second["access_token"])) as narrow:
            assert (await narrow.post(DATAPROC, json=an_exec())).json()["error"]["code"] == -32002

    async def test_an_idle_one_frees_its_name(self, client: httpx.AsyncClient, clock: ManualClock) -> None:
        """At the instant, though nobody has ended it yet."""
        first = await open_session(client, name="job", idle_timeout=10)
        clock.advance(10)
        second = await open_session(client, name="job")
        assert second["session_id"] != first["session_id"]
        assert (await state(client, first["session_id"]))[1] == "idle"

    async def test_a_close_and_an_opening_at_once(self, client: httpx.AsyncClient) -> None:
        """Whoever comes first, the opening is answered by a session that lives or just ended; nothing breaks."""
        for _ in range(10):
            token = (await open_session(client, name="job"))["access_token"]
            closing, opened = await asyncio.gather(
                call(client, "session.close_session", [token]), call(client, "session.open_session", {"name": "job"})
            )
            assert closing["result"] is True
            assert "result" in opened


class TestGrace:
    """Files are kept for a while, and the session comes back with them."""

    async def test_restored_with_its_files(self, world: World, client: httpx.AsyncClient, clock: ManualClock) -> None:
        """The fresh token opens it, the old ones stay dead; the fixed clock goes on where it had time left."""
        opened = await open_session(client, idle_timeout=60)
        async with world.client(with_token(opened["access_token"])) as inside:
            await inside.post(DATAPROC, json=an_exec())
            await call(client, "session.close_session", [opened["access_token"]])
            assert (await inside.post(DATAPROC, json=an_exec())).status_code == 401
            clock.advance(99)
            await reap(world)
            back = (await call(client, "session.restore_session", [opened["session_id"]]))["result"]
            assert (back["session_id"], back["expires_in"], back["idle_expires_in"]) == (
                opened["session_id"],
                401,
                60,
            )
            dead = await inside.post(DATAPROC, json=an_exec())
            assert dead.json()["error"]["data"]["reason"] == "revoked"
        async with world.client(with_token(back["access_token"])) as again:
            assert (await again.post(DATAPROC, json=an_exec())).json()["result"] == 2
        assert await state(client, opened["session_id"]) == ("open", None)

    async def test_a_clock_that_had_run_out_starts_anew(
        self, world: World, client: httpx.AsyncClient, clock: ManualClock
    ) -> None:
        """With the life that it had."""
        opened = await open_session(client, expires_in=50)
        clock.advance(60)
        await reap(world)
        back = (await call(client, "session.restore_session", [opened["session_id"]]))["result"]
        assert back["expires_in"] == 50

    async def test_after_the_grace_period_all_is_gone(
        self, world: World, client: httpx.AsyncClient, clock: ManualClock
    ) -> None:
        """The files are deleted, and the error says why there is nothing to restore."""
        opened = await open_session(client)
        async with world.client(with_token(opened["access_token"])) as inside:
            await inside.post(DATAPROC, json=an_exec())
        await call(client, "session.close_session", [opened["access_token"]])
        assert len(world.directories()) == 1
        clock.advance(100)
        error = (await call(client, "session.restore_session", [opened["session_id"]]))["error"]
        assert (error["code"], error["data"]["reason"]) == (-32003, "closed")
        await reap(world)
        assert world.directories() == []
        view = (await call(client, "session.get_session", {"session_id": opened["session_id"]}))["result"]
        assert (view["state"], view["restorable_until"]) == ("ended", None)

    async def test_restored_twice(self, world: World, client: httpx.AsyncClient) -> None:
        """One of two at once brings it back; the other is told that it is open."""
        opened = await open_session(client)
        await call(client, "session.close_session", [opened["access_token"]])
        answers = await asyncio.gather(
            *(call(client, "session.restore_session", [opened["session_id"]]) for _ in range(2))
        )
        assert sorted("result" in answer for answer in answers) == [False, True]
        assert next(answer["error"]["code"] for answer in answers if "error" in answer) == -32011
        assert await state(client, opened["session_id"]) == ("open", None)

    async def test_a_name_that_is_taken(self, client: httpx.AsyncClient) -> None:
        """Its bearer now has to go first."""
        opened = await open_session(client, name="job")
        await call(client, "session.close_session", [opened["access_token"]])
        await open_session(client, name="job")
        assert await code_of(client, "session.restore_session", [opened["session_id"]]) == -32011

    async def test_restored_and_ended_again(self, world: World, client: httpx.AsyncClient) -> None:
        """A second life ends as the first."""
        opened = await open_session(client)
        for _ in range(3):
            await call(client, "session.close_session", {"session_id": opened["session_id"]})
            assert await state(client, opened["session_id"]) == ("ended", "closed")
            back = (await call(client, "session.restore_session", [opened["session_id"]]))["result"]
            async with world.client(with_token(back["access_token"])) as inside:
                assert (await inside.post(DATAPROC, json=an_exec())).status_code == 200

    async def test_a_call_with_a_key_keeps_nothing(self, world: World, client: httpx.AsyncClient) -> None:
        """Its session ends with it for good: nobody could restore it."""
        await client.post(DATAPROC, json=an_exec())
        assert world.directories() == []

    async def test_a_restart_changes_nothing(
        self, tmp_path: Path, world: World, client: httpx.AsyncClient, clock: ManualClock
    ) -> None:
        """Clocks, tombstones, files kept: another server on the same storage has them all."""
        living = await open_session(client, idle_timeout=400)
        ended = await open_session(client)
        await call(client, "session.close_session", [ended["access_token"]])
        clock.advance(50)
        async with a_world(tmp_path, clock=clock, grace_period=100) as later, later.client(client.headers) as there:  # type: ignore[arg-type]
            view = (await call(there, "session.get_session", {"session_id": living["session_id"]}))["result"]
            assert (view["expires_in"], view["idle_expires_in"]) == (450, 350)
            back = await call(there, "session.restore_session", [ended["session_id"]])
            assert back["result"]["expires_in"] == 450
        # the first server, which ended it, sees that it lives again
        async with world.client(with_token(back["result"]["access_token"])) as inside:
            assert (await inside.post(DATAPROC, json=an_exec())).status_code == 200


class TestTombstones:
    """Why, when and by whom."""

    async def test_who_ended_it(self, world: World, client: httpx.AsyncClient) -> None:
        """The key, or the token that asked."""
        opened = await open_session(client)
        async with world.client(with_token(opened["access_token"])) as inside:
            await call(inside, "session.close_session", [opened["access_token"]])
        view = (await call(client, "session.get_session", {"session_id": opened["session_id"]}))["result"]
        assert view["ended_by"].startswith("token:")
        other = await open_session(client)
        await call(client, "session.close_session", [other["access_token"]])
        view = (await call(client, "session.get_session", {"session_id": other["session_id"]}))["result"]
        assert view["ended_by"].startswith("key:")
        assert view["ended_at"] is not None

    async def test_a_session_is_shown_whole(self, client: httpx.AsyncClient) -> None:
        """Every member is there, whatever the session has."""
        opened = await open_session(client, name="n", labels={"a": "b"}, idle_timeout=60)
        view = (await call(client, "session.get_session", [opened["access_token"]]))["result"]
        assert view["id"] == view["session_id"] == opened["session_id"]
        assert (view["name"], view["labels"], view["state"], view["reason"]) == ("n", {"a": "b"}, "open", None)
        assert (view["expires_in"], view["idle_timeout"], view["idle_expires_in"]) == (500, 60, 60)
        assert {"created_at", "expires_at", "ended_at", "running", "limits"} <= view.keys()
        assert opened["access_token"] not in str(view)


async def test_a_gateway_s_session(world: World) -> None:
    """It has an idle clock and no fixed one, and its caller may look at it and keep it alive."""
    headers = {"Xdata-Gateway-Secret": "g" * 32, "Xdata-Session-Id": "their-session-1"}
    async with world.client(headers) as gateway:
        kept = (await call(gateway, "session.keep_alive"))["result"]
        assert kept == {"expires_in": None, "idle_expires_in": DAY}
        by_id = await call(gateway, "session.get_session", {"session_id": "their-session-1"})
        assert by_id["result"]["id"] == "their-session-1"
        assert await code_of(gateway, "session.issue_token") == -32002


async def test_what_a_session_takes_is_shown(world: World, client: httpx.AsyncClient) -> None:
    """Bytes and files now, beside what it may take."""
    opened = await open_session(client)
    async with world.client(with_token(opened["access_token"])) as inside:
        await inside.put("/api/v1/dataproc/files/a.txt", content=b"12345")
        view = (await call(inside, "session.get_session"))["result"]
    assert view["usage"]["bytes"] >= 5
    assert view["usage"]["files"] >= 1
    assert view["limits"]["bytes"] == world.settings.session_bytes
