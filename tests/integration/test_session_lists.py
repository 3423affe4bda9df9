"""Lists of sessions over HTTP, what operators see across keys, and input that is refused by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dataproc.access import ALL_SCOPES
from dataproc.clock import ManualClock
from tests.factories import DATAPROC, World, a_world, an_exec, call, open_session, with_key, with_token


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def world(tmp_path: Path, clock: ManualClock) -> AsyncIterator[World]:
    async with a_world(tmp_path, clock=clock, gateway_secret="g" * 32) as made:
        yield made


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client(with_key(await world.key())) as made:
        yield made


@pytest.fixture
async def admin(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client(with_key(await world.key(scopes=["admin"]))) as made:
        yield made


async def listed(client: httpx.AsyncClient, **params: Any) -> list[str]:
    return [each["id"] for each in (await call(client, "session.list_sessions", params))["result"]["sessions"]]


class TestLists:
    """`session.list_sessions`."""

    async def test_newest_first_in_pages(self, client: httpx.AsyncClient, clock: ManualClock) -> None:
        """Each once, whatever is opened between the pages; the last page has no cursor."""
        made = []
        for number in range(7):
            made.append((await open_session(client))["session_id"])
            clock.advance(number % 2)  # some at the same instant
        seen: list[str] = []
        cursor = None
        while True:
            page = (await call(client, "session.list_sessions", {"cursor": cursor, "limit": 3}))["result"]
            seen += [each["id"] for each in page["sessions"]]
            cursor = page["cursor"]
            await open_session(client)
            if cursor is None:
                break
        assert sorted(seen) == sorted(made)
        times = {
            each["id"]: each["created_at"]
            for each in (await call(client, "session.list_sessions"))["result"]["sessions"]
        }
        assert [times[each] for each in seen] == sorted((times[each] for each in seen), reverse=True)

    async def test_by_state(self, client: httpx.AsyncClient, clock: ManualClock) -> None:
        """Tombstones are listed too."""
        one, other = await open_session(client), await open_session(client)
        await call(client, "session.close_session", [one["access_token"]])
        assert await listed(client, state="open") == [other["session_id"]]
        assert await listed(client, state="ended") == [one["session_id"]]
        assert await listed(client, state="closing") == []
        assert set(await listed(client)) == {one["session_id"], other["session_id"]}

    async def test_by_labels(self, client: httpx.AsyncClient) -> None:
        """All that are asked for, as they are: quotes, signs of patterns and other cases are nothing special."""
        sets = [{"team": "a", "n": "1"}, {"team": "a"}, {"Team": "A"}, {"x": 'q"team": "a'}, {"team": "%"}, {}]
        ids = [(await open_session(client, labels=labels))["session_id"] for labels in sets]
        assert set(await listed(client, labels={"team": "a"})) == {ids[0], ids[1]}
        assert await listed(client, labels={"team": "a", "n": "1"}) == [ids[0]]
        assert await listed(client, labels={"team": "%"}) == [ids[4]]
        assert await listed(client, labels={"x": 'q"team": "a'}) == [ids[3]]
        assert len(await listed(client, labels={})) == 6

    async def test_calls_with_a_key_are_not_listed(self, client: httpx.AsyncClient) -> None:
        """Their sessions are nobody's to look at; one that was kept is."""
        await client.post(DATAPROC, json=an_exec())
        kept = await client.post(DATAPROC, json=an_exec(close=False))
        assert await listed(client) == [kept.headers["xdata-session-id"]]


class TestOperators:
    """`all: true`, and the methods that take `admin`."""

    async def test_an_operator_sees_and_ends_them_all(
        self, world: World, client: httpx.AsyncClient, admin: httpx.AsyncClient
    ) -> None:
        """Of every key, those of gateways too; without `all` only its own."""
        opened = await open_session(client)
        async with world.client({"Xdata-Gateway-Secret": "g" * 32, "Xdata-Session-Id": "their-session"}) as gateway:
            await call(gateway, "session.keep_alive")
            assert set(await listed(admin, all=True)) == {opened["session_id"], "gw.their-session"}
            for session_id in await listed(admin, all=True):
                view = await call(admin, "session.get_session", {"session_id": session_id, "all": True})
                assert view["result"]["id"] == session_id
                ended = await call(admin, "session.close_session", {"session_id": session_id, "all": True})
                assert ended["result"] is True
            assert (await gateway.post(DATAPROC, json=an_exec())).status_code == 401
        assert await listed(admin, all=True, state="open") == []
        view = (await call(client, "session.get_session", {"session_id": opened["session_id"]}))["result"]
        assert view["ended_by"].startswith("key:")
        assert (await call(admin, "session.list_sessions"))["error"]["data"]["scope"] == "session.manage"

    async def test_a_token_names_the_session_of_another_key(
        self, client: httpx.AsyncClient, admin: httpx.AsyncClient
    ) -> None:
        """With `all` an operator finds and ends a session by its token as by its id."""
        opened = await open_session(client)
        named = {"token": opened["access_token"], "all": True}
        assert (await call(admin, "session.get_session", named))["result"]["id"] == opened["session_id"]
        assert (await call(admin, "session.close_session", named))["result"] is True
        assert await listed(admin, all=True, state="open") == []

    async def test_without_admin_nobody_does(self, world: World, client: httpx.AsyncClient) -> None:
        """Not by a key, and not by a token that carries the scope: it acts in its session alone."""
        async with world.client(with_key(await world.key(scopes=sorted(ALL_SCOPES)))) as full:
            token = (await open_session(full))["access_token"]
        async with world.client(with_token(token)) as inside:
            for who in (client, inside):
                for method, params in (
                    ("session.list_sessions", {}),
                    ("session.get_session", {"session_id": "x" * 36}),
                    ("session.close_session", {"session_id": "x" * 36}),
                    ("session.extend_session", {"session_id": "x" * 36}),
                ):
                    error = (await call(who, method, {**params, "all": True}))["error"]
                    assert error["code"] == -32002, method
                for method in ("dataproc.drain", "dataproc.get_usage"):
                    assert (await call(who, method))["error"]["code"] == -32002

    async def test_use_by_key(self, client: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
        """The busiest first."""
        for _ in range(2):
            await open_session(client)
        used = (await call(admin, "dataproc.get_usage"))["result"]["keys"]
        assert used[0]["sessions"]["open"] == 2
        assert len(used) == 2

    async def test_a_drained_server_takes_nothing_new(
        self, client: httpx.AsyncClient, admin: httpx.AsyncClient
    ) -> None:
        """No session and no call with a key; until it is taken back."""
        opened = await open_session(client)
        assert (await call(admin, "dataproc.drain"))["result"] == {"draining": True, "busy": 0}
        refused = (await call(client, "session.open_session"))["error"]
        assert (refused["code"], refused["data"]["limit"], refused["data"]["retryable"]) == (-32010, "draining", True)
        assert (await client.post(DATAPROC, json=an_exec())).json()["error"]["code"] == -32010
        assert (await call(client, "session.close_session", [opened["access_token"]]))["result"] is True
        assert (await call(admin, "dataproc.drain", {"on": False}))["result"]["draining"] is False
        await open_session(client)


HUGE = 10**400
_WHOLE = [0, -1, 1.5, True, "60", [], {}, 10**12, HUGE, float("1e300")]
_TEXT = [1, True, [], {}, 1.5]
_MAPS = ["a", 1, [], True, {"a": 1}, {"a": None}, {"a": ["b"]}, {"a": "\0"}, {str(n): "" for n in range(65)}]
_FLAGS = [1, 0, "true", None, [], {}]
BAD = [
    *[("open_session", "expires_in", value) for value in _WHOLE],
    *[("open_session", "idle_timeout", value) for value in _WHOLE],
    *[("open_session", "name", value) for value in [*_TEXT, "", "a\nb", "x" * 201]],
    *[("open_session", "labels", value) for value in _MAPS],
    *[("open_session", "scopes", value) for value in ["files.read", 1, {}, [], [1], ["no"], [None]]],
    *[("extend_session", "expires_in", value) for value in _WHOLE],
    *[("extend_session", "token", value) for value in _TEXT],
    *[("keep_alive", "token", value) for value in _TEXT],
    *[("keep_alive", "session_id", value) for value in _TEXT],
    *[("get_session", "token", value) for value in _TEXT],
    *[("get_session", "session_id", value) for value in _TEXT],
    *[("get_session", "all", value) for value in _FLAGS],
    *[("verify_session_token", "token", value) for value in [*_TEXT, None]],
    *[("close_session", "token", value) for value in [*_TEXT, None]],
    *[("revoke_token", "token", value) for value in [*_TEXT, None]],
    *[("restore_session", "session_id", value) for value in [*_TEXT, None, ""]],
    *[("issue_token", "expires_in", value) for value in _WHOLE],
    *[("issue_token", "scopes", value) for value in ["files.read", 1, {}, [], [1], ["no"], [None]]],
    *[("issue_token", "session_id", value) for value in _TEXT],
    *[("list_sessions", "state", value) for value in [*_TEXT, "", "OPEN", "x"]],
    *[("list_sessions", "labels", value) for value in ["a", 1, [], True, {"a": 1}, {"a": None}]],
    *[
        ("list_sessions", "cursor", value)
        for value in [*_TEXT, "", "x", "é", "W10=", "WzEsMl0=", "bnVsbA==", "x" * 5000]
    ],
    *[("list_sessions", "limit", value) for value in [*_WHOLE, None, 1001]],
    *[("list_sessions", "all", value) for value in _FLAGS],
    *[(method, "no_such", 1) for method in ("open_session", "keep_alive", "list_sessions", "issue_token")],
]
REQUIRED = {
    "revoke_token": {"token": "t"},
    "restore_session": {"session_id": "s"},
    "verify_session_token": {"token": "t"},
}


async def test_bad_input_is_refused_by_name(client: httpx.AsyncClient) -> None:
    """Whatever the method and the member: -32602, and the member is named."""
    session = (await open_session(client))["session_id"]
    base = {"issue_token": {"session_id": session}, "extend_session": {"session_id": session}, **REQUIRED}
    for method, member, value in BAD:
        params = {**base.get(method, {}), member: value}
        error = (await call(client, f"session.{method}", params)).get("error")
        assert error is not None, (method, member, value)
        assert error["code"] == -32602, (method, member, value, error)
        assert error["data"]["errors"][0]["loc"][0] == member, (method, member, value, error)


@pytest.mark.parametrize(
    "method",
    [
        "keep_alive",
        "extend_session",
        "get_session",
        "issue_token",
        "close_session",
        "revoke_token",
        "restore_session",
        "verify_session_token",
    ],
)
async def test_a_caller_with_a_key_names_the_session(client: httpx.AsyncClient, method: str) -> None:
    """There is none of its own."""
    error = (await call(client, f"session.{method}"))["error"]
    assert error["code"] == -32602
    assert error["data"]["errors"][0]["loc"][0] in ("token", "session_id")
