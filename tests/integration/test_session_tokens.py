"""Scopes, grants and narrower tokens over HTTP: who may do what, and what dies with what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dataproc.clock import ManualClock
from tests.factories import (
    DATAPROC,
    SESSION,
    World,
    a_world,
    an_exec,
    call,
    nothing,
    open_session,
    with_key,
    with_token,
)
from tests.factories import append as appending


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def world(tmp_path: Path, clock: ManualClock) -> AsyncIterator[World]:
    modules = {"plain": {"append": appending, "nothing": nothing}, "other": {"nothing": nothing}}
    async with a_world(tmp_path, modules, clock) as made:
        yield made


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client(with_key(await world.key())) as made:
        yield made


async def issue(client: httpx.AsyncClient, **params: Any) -> dict[str, Any]:
    answer = await call(client, "session.issue_token", params)
    assert "result" in answer, answer
    return dict(answer["result"])


async def code_of(client: httpx.AsyncClient, method: str, params: Any = None) -> int | None:
    answer = await call(client, method, params)
    return answer["error"]["code"] if "error" in answer else None


async def may_run(world: World, token: str, method: str = "append", module: str = "plain") -> bool:
    """Whether the token opens the method; False where it lacks the scope or is dead."""
    async with world.client(with_token(token)) as inside:
        return "result" in (await inside.post(DATAPROC, json=an_exec(method, module))).json()


class TestKeys:
    """What a key may, and what its tokens may."""

    async def test_a_key_that_can_only_dispense(self, world: World) -> None:
        """It opens sessions and does nothing in them; their tokens do what its grants say."""
        key = await world.key(scopes=["session.open"], grants=["dataproc.exec:plain.nothing", "files.read"])
        async with world.client(with_key(key)) as client:
            opened = await open_session(client)
            assert opened["scopes"] == ["dataproc.exec:plain.nothing", "files.read"]
            assert (await client.post(DATAPROC, json=an_exec())).json()["error"]["data"]["scope"] == "dataproc.exec"
            for method in ("session.list_sessions", "session.get_session", "session.issue_token"):
                assert await code_of(client, method, {}) == -32002
            assert await may_run(world, opened["access_token"], "nothing")
            assert not await may_run(world, opened["access_token"], "append")
            assert not await may_run(world, opened["access_token"], "nothing", "other")

    async def test_rotation_changes_the_secret_alone(self, world: World) -> None:
        """The old one is refused at once, sessions go on."""
        key = await world.key()
        async with world.client(with_key(key)) as client:
            opened = await open_session(client)
            rotated = await world.keys.rotate(key.id)
            assert (await client.post(DATAPROC, json=an_exec())).status_code == 401
        assert (rotated.id, rotated.apikey, rotated.scopes) == (key.id, key.apikey, key.scopes)
        async with world.client(with_key(rotated)) as client:
            assert (await client.post(DATAPROC, json=an_exec())).status_code == 200
        assert await may_run(world, opened["access_token"])

    async def test_expiry_and_revocation_take_the_tokens_along(self, world: World, clock: ManualClock) -> None:
        """Whatever the token was to last."""
        short, long = await world.key(expires_in=100), await world.key()
        tokens = []
        for key in (short, long):
            async with world.client(with_key(key)) as client:
                opened = await open_session(client)
                tokens += [
                    opened["access_token"],
                    (await issue(client, session_id=opened["session_id"]))["access_token"],
                ]
        await world.keys.revoke(long.id)
        assert [await may_run(world, token) for token in tokens] == [True, True, False, False]
        clock.advance(100)
        assert not any([await may_run(world, token) for token in tokens])

    async def test_elsewhere_within_a_second(self, tmp_path: Path, world: World, clock: ManualClock) -> None:
        """Another server on the same database believes no longer than that."""
        key = await world.key()
        async with a_world(tmp_path, clock=clock) as other, other.client(with_key(key)) as client:
            token = (await open_session(client))["access_token"]
            async with other.client(with_token(token)) as inside:
                for each in (client, inside):
                    assert (await each.post(DATAPROC, json=an_exec())).status_code == 200
                await world.keys.revoke(key.id)
                clock.advance(1)
                for each in (client, inside):
                    assert (await each.post(DATAPROC, json=an_exec())).status_code == 401


class TestNarrowing:
    """Tokens for somebody else."""

    async def test_one_module_one_method(self, world: World, client: httpx.AsyncClient) -> None:
        """A token may be narrowed down to one method, and lists show what it opens."""
        opened = await open_session(client)
        async with world.client(with_token(opened["access_token"])) as inside:
            narrow = await issue(inside, scopes=["dataproc.exec:plain.append"])
        assert narrow["scopes"] == ["dataproc.exec:plain.append"]
        token = narrow["access_token"]
        assert await may_run(world, token, "append")
        assert not await may_run(world, token, "nothing")
        async with world.client(with_token(token)) as inside:
            modules = (await call(inside, "dataproc.list_modules"))["result"]["modules"]
            assert [(row["name"], row["methods"]) for row in modules] == [("plain", ["append"])]
            shown = (await call(inside, "rpc.discover", path=SESSION))["result"]["methods"]
            assert {method["name"] for method in shown} == {
                f"session.{name}" for name in ("close_session", "keep_alive", "get_session", "verify_session_token")
            }

    @pytest.mark.parametrize("scopes", [["admin"], ["files.read", "session.open"], ["dataproc.exec"]])
    async def test_never_wider(self, world: World, client: httpx.AsyncClient, scopes: list[str]) -> None:
        """What the asker lacks it cannot give, whether it has a key or a token."""
        opened = await open_session(client, scopes=["session.manage", "files.read", "dataproc.exec:plain"])
        async with world.client(with_token(opened["access_token"])) as inside:
            assert await code_of(inside, "session.issue_token", {"scopes": scopes}) == -32002
            assert await code_of(inside, "session.issue_token", {"scopes": ["dataproc.exec:plain.append"]}) is None

    @pytest.mark.parametrize(
        "scopes", [[], "files.read", [1], {}, ["no.such"], [""], ["dataproc.exec:"], ["dataproc.exec:Plain"], [None]]
    )
    async def test_scopes_that_are_none(self, client: httpx.AsyncClient, scopes: Any) -> None:
        """A token that is narrowed to nothing, or to what there is not."""
        opened = await open_session(client)
        for method, more in (("open_session", {}), ("issue_token", {"session_id": opened["session_id"]})):
            error = (await call(client, f"session.{method}", {"scopes": scopes, **more}))["error"]
            assert (error["code"], error["data"]["errors"][0]["loc"][0]) == (-32602, "scopes")

    async def test_a_token_is_no_longer_than_its_parent(
        self, world: World, client: httpx.AsyncClient, clock: ManualClock
    ) -> None:
        """It dies when its parent's time is over, or its own, or its session's."""
        opened = await open_session(client, expires_in=100)
        parent = await issue(client, session_id=opened["session_id"], expires_in=50)
        assert parent["expires_in"] == 50
        async with world.client(with_token(parent["access_token"])) as inside:
            child = await issue(inside, expires_in=80)
            short = await issue(inside, expires_in=10)
        assert (child["expires_in"], short["expires_in"]) == (50, 10)
        clock.advance(10)
        alive = [await may_run(world, each["access_token"]) for each in (parent, child, short)]
        assert alive == [True, True, False]
        clock.advance(40)
        assert not any([await may_run(world, each["access_token"]) for each in (parent, child, short)])
        assert await may_run(world, opened["access_token"])

    async def test_children_die_with_their_parents(self, world: World, client: httpx.AsyncClient) -> None:
        """At once, all the way down; the rest of the session lives on."""
        opened = await open_session(client)
        tokens = [opened["access_token"]]
        for _ in range(3):
            async with world.client(with_token(tokens[-1])) as inside:
                tokens.append((await issue(inside))["access_token"])
        assert all([await may_run(world, token) for token in tokens])
        async with world.client(with_token(tokens[0])) as inside:
            assert (await call(inside, "session.revoke_token", [tokens[1]]))["result"] is True
        assert [await may_run(world, token) for token in tokens] == [True, False, False, False]
        async with world.client(with_token(tokens[3])) as dead:
            refused = await dead.post(DATAPROC, json=an_exec())
        assert (refused.status_code, refused.json()["error"]["data"]["reason"]) == (401, "revoked")

    async def test_a_lost_token_is_replaced_with_the_key(self, world: World, client: httpx.AsyncClient) -> None:
        """By the session's id."""
        opened = await open_session(client)
        again = await issue(client, session_id=opened["session_id"])
        assert again["session_id"] == opened["session_id"]
        assert await may_run(world, again["access_token"])


class TestClosing:
    """Who may end what."""

    async def test_without_session_manage_a_token_ends_itself_alone(
        self, world: World, client: httpx.AsyncClient
    ) -> None:
        """Not the session, and no other token of it."""
        opened = await open_session(client)
        narrow = (await issue(client, session_id=opened["session_id"], scopes=["files.read"]))["access_token"]
        async with world.client(with_token(narrow)) as inside:
            assert (await call(inside, "session.close_session", [opened["access_token"]]))["result"] is True
            assert await may_run(world, opened["access_token"])
            assert (await call(inside, "session.close_session", [narrow]))["result"] is True
            assert (await inside.post(SESSION, json={})).status_code == 401
        assert await may_run(world, opened["access_token"])

    async def test_with_it_the_session_ends(self, world: World, client: httpx.AsyncClient) -> None:
        """By any token of the session."""
        opened = await open_session(client)
        narrow = (await issue(client, session_id=opened["session_id"], scopes=["files.read"]))["access_token"]
        async with world.client(with_token(opened["access_token"])) as inside:
            assert (await call(inside, "session.close_session", [narrow]))["result"] is True
        view = await call(client, "session.get_session", {"session_id": opened["session_id"]})
        assert view["result"]["state"] == "ended"

    async def test_the_table_of_scopes(self, world: World, client: httpx.AsyncClient) -> None:
        """What is open to any token of the session, and what takes `session.manage`."""
        opened = await open_session(client)
        bare = (await issue(client, session_id=opened["session_id"], scopes=["files.read"]))["access_token"]
        async with world.client(with_token(bare)) as inside:
            for method in ("session.get_session", "session.keep_alive"):
                assert await code_of(inside, method) is None
            assert await code_of(inside, "dataproc.get_server_version") is None
            for method, params in (
                ("session.extend_session", {}),
                ("session.issue_token", {}),
                ("session.revoke_token", {"token": bare}),
                ("session.list_sessions", {}),
                ("session.restore_session", {"session_id": opened["session_id"]}),
                ("session.open_session", {}),
                ("session.get_session", {"all": True}),
            ):
                assert await code_of(inside, method, params) == -32002, method
        async with world.client(with_token(opened["access_token"])) as inside:
            for method in ("session.list_sessions", "session.open_session"):
                assert await code_of(inside, method) == -32002, method
            assert await code_of(inside, "session.extend_session", {"expires_in": 60}) is None


class TestOthers:
    """Another key's tokens and ids, in each method: nothing learned, nothing changed."""

    async def test_nothing_learned_nothing_changed(self, world: World, client: httpx.AsyncClient) -> None:
        """The answers are those for what does not exist, but for what stands in them of the question."""
        opened = await open_session(client, idle_timeout=60)
        token, session = opened["access_token"], opened["session_id"]
        no_token, no_session = "0" * 36, "00000000-0000-4000-8000-000000000000"
        own_before = (await call(client, "session.get_session", [token]))["result"]
        async with world.client(with_key(await world.key())) as stranger:
            inside_token = (await open_session(stranger))["access_token"]
            async with world.client(with_token(inside_token)) as inside:
                for who in (stranger, inside):
                    for method, members in (
                        ("verify_session_token", {"token": token}),
                        ("close_session", {"token": token}),
                        ("close_session", {"session_id": session}),
                        ("keep_alive", {"token": token}),
                        ("extend_session", {"token": token, "expires_in": 999}),
                        ("get_session", {"token": token}),
                        ("get_session", {"session_id": session}),
                        ("issue_token", {"session_id": session}),
                        ("revoke_token", {"token": token}),
                        ("restore_session", {"session_id": session}),
                    ):
                        missing = {"token": no_token, "session_id": no_session}
                        unknown = members | {name: missing[name] for name in members if name in missing}
                        told = [await call(who, f"session.{method}", params) for params in (members, unknown)]
                        for answer in told:
                            answer.get("error", {}).get("data", {}).pop("request_id", None)
                        assert told[0] == told[1], method
                        assert told[0].get("result") in (True, {"active": False}, None), method
            mine = (await call(stranger, "session.list_sessions"))["result"]["sessions"]
            assert session not in [each["id"] for each in mine]
        assert (await call(client, "session.get_session", [token]))["result"] == own_before
        assert await may_run(world, token)


@pytest.mark.parametrize("method", ["get_session", "keep_alive", "close_session", "issue_token"])
async def test_an_empty_id_names_no_session(world: World, client: httpx.AsyncClient, method: str) -> None:
    """A script whose variable is empty does not end, or look into, its own session by mistake."""
    opened = await open_session(client)
    async with world.client(with_token(opened["access_token"])) as inside:
        answer = await call(inside, f"session.{method}", {"session_id": ""})
        assert answer.get("result", True) is True  # a close answers true to everybody
        assert (await call(inside, "session.get_session"))["result"]["state"] == "open"
