"""Sessions over HTTP: opened, used, closed; one-shot calls; the back-end role; forward-auth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dataproc.executor import Call
from dataproc.runs import Completed, Crashed, Outcome, TimedOut
from tests.factories import (
    DATAPROC,
    SESSION,
    World,
    a_call,
    a_world,
    an_exec,
    append,
    call,
    open_session,
    with_key,
    with_token,
)

GATEWAY = {"Xdata-Gateway-Secret": "g" * 32}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, gateway_secret="g" * 32, gateway_peers="10.1.0.0/16") as made:
        yield made


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client(with_key(await world.key())) as made:
        yield made


async def test_a_session_is_opened_used_and_closed(world: World, client: httpx.AsyncClient) -> None:
    """Calls with the token find what earlier ones left, until the close takes the directory away."""
    opened = await open_session(client)
    assert opened["expires_in"] == 2592000
    async with world.client(with_token(opened["access_token"])) as inside:
        answers = [await inside.post(DATAPROC, json=an_exec()) for _ in range(2)]
        assert [answer.json()["result"] for answer in answers] == [1, 2]
        assert answers[0].headers["xdata-session-id"] == opened["session_id"]
        assert len(world.directories()) == 1
        assert (await call(client, "session.close_session", [opened["access_token"]]))["result"] is True
        assert world.directories() == []
        refused = await inside.post(DATAPROC, json=an_exec())
    assert refused.status_code == 401
    error = refused.json()["error"]
    assert (error["code"], error["data"]["reason"]) == (-32003, "closed")
    assert {"ended_at", "request_id", "name", "retryable"} <= error["data"].keys()


async def test_bearer_is_the_same_as_the_token_header(world: World, client: httpx.AsyncClient) -> None:
    """`Authorization: Bearer` carries the token too."""
    opened = await open_session(client, expires_in=60)
    assert opened["expires_in"] == 60
    async with world.client({"Authorization": f"Bearer {opened['access_token']}"}) as inside:
        view = (await call(inside, "session.get_session"))["result"]
    assert (view["session_id"], view["state"]) == (opened["session_id"], "open")


@pytest.mark.parametrize("expires_in", [0, -1, 1.5, True, "60", [], 10**12, 10**400])
async def test_a_life_that_is_none(client: httpx.AsyncClient, expires_in: Any) -> None:
    """`expires_in` is a whole number of seconds above zero, or null."""
    error = (await call(client, "session.open_session", {"expires_in": expires_in}))["error"]
    assert error["code"] == -32602
    assert error["data"]["errors"][0]["loc"] == ["expires_in"]


@pytest.mark.parametrize("params", [{}, [], {"expires_in": None}, [None], [60], {"name": "n", "labels": {"a": "b"}}])
async def test_ways_to_open_a_session(client: httpx.AsyncClient, params: Any) -> None:
    """By name, by position, with null for the default, and with members of ours by name."""
    answer = await call(client, "session.open_session", params)
    assert {"access_token", "expires_in", "session_id"} <= answer["result"].keys()


async def test_a_session_opens_no_session(world: World, client: httpx.AsyncClient) -> None:
    """Opening takes a key, whatever scopes a token carries."""
    opened = await open_session(client)
    async with world.client(with_token(opened["access_token"])) as inside:
        error = (await call(inside, "session.open_session"))["error"]
    assert (error["code"], error["data"]["scope"]) == (-32002, "session.open")


async def test_verify_tells_nothing_about_others(world: World, client: httpx.AsyncClient) -> None:
    """Active for a token of one's own that opens a session now, false for everything else."""
    token = (await open_session(client))["access_token"]
    async with world.client(with_key(await world.key())) as other:
        assert (await call(other, "session.verify_session_token", [token]))["result"] == {"active": False}
        assert (await call(other, "session.close_session", [token]))["result"] is True
    assert (await call(client, "session.verify_session_token", {"token": token}))["result"] == {"active": True}
    await call(client, "session.close_session", [token])
    for unknown in (token, "no token", ""):
        assert (await call(client, "session.verify_session_token", [unknown]))["result"] == {"active": False}
        assert (await call(client, "session.close_session", [unknown]))["result"] is True


@pytest.mark.parametrize("params", [{}, {"token": 1}, {"token": None}, {"token": "a", "more": 1}])
async def test_malformed_token_params(client: httpx.AsyncClient, params: Any) -> None:
    """A request that is not well formed is refused also where any token would be answered."""
    for method in ("session.verify_session_token", "session.close_session"):
        assert (await call(client, method, params))["error"]["code"] == -32602


async def test_get_session_of_ones_own_and_of_others(world: World, client: httpx.AsyncClient) -> None:
    """A key sees its sessions, ended ones too; another's do not exist."""
    opened = await open_session(client, name="mine")
    for params in ({"token": opened["access_token"]}, {"session_id": opened["session_id"]}):
        assert (await call(client, "session.get_session", params))["result"]["name"] == "mine"
    async with world.client(with_key(await world.key())) as other:
        error = (await call(other, "session.get_session", {"session_id": opened["session_id"]}))["error"]
    assert error["code"] == -32013
    await call(client, "session.close_session", [opened["access_token"]])
    ended = (await call(client, "session.get_session", {"session_id": opened["session_id"]}))["result"]
    assert (ended["state"], ended["reason"]) == ("ended", "closed")


async def test_a_call_with_a_key_leaves_nothing(world: World, client: httpx.AsyncClient) -> None:
    """Each request without a token has a session of its own, which ends with it, failed or not."""
    for _ in range(2):
        response = await client.post(DATAPROC, json=an_exec())
        assert response.json()["result"] == 1
        assert "xdata-session-token" not in response.headers
    assert (await client.post(DATAPROC, json=an_exec("no-such"))).json()["error"]["code"] == -32004
    assert world.directories() == []
    assert len({each.session for each in world.executor.calls}) == 2


async def test_a_refused_call_opens_no_session(world: World, client: httpx.AsyncClient) -> None:
    """An unknown module is refused before a session is opened for it."""
    response = await client.post(DATAPROC, json=an_exec(module="no-such"))
    assert (response.json()["error"]["code"], response.json()["error"]["data"]["name"]) == (-32004, "module_not_found")
    assert "xdata-session-id" not in response.headers


async def test_close_false_keeps_the_session(world: World, client: httpx.AsyncClient) -> None:
    """The token and id of a session that is kept come as headers, and open it."""
    response = await client.post(DATAPROC, json=an_exec(close=False))
    assert response.json()["result"] == 1
    async with world.client(with_token(response.headers["xdata-session-token"])) as inside:
        again = await inside.post(DATAPROC, json=an_exec(close=True))
        assert again.json()["result"] == 2
        assert again.headers["xdata-session-id"] == response.headers["xdata-session-id"]
        assert (await inside.post(DATAPROC, json=an_exec())).status_code == 401


async def test_close_true_does_not_wait_for_others(tmp_path: Path) -> None:
    """The reply of the call that closes comes at once; a run that was under way ends in peace."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(call: Call, folder: Path) -> Outcome:
        begun.set()
        await go.wait()
        return Completed("done")

    async with a_world(tmp_path, {"plain": {"slow": slow, "append": append}}) as world:
        key = await world.key()
        async with world.app.router.lifespan_context(world.app), world.client(with_key(key)) as client:
            token = (await open_session(client))["access_token"]
            async with world.client(with_token(token)) as inside:
                running = asyncio.create_task(inside.post(DATAPROC, json=an_exec("slow")))
                await begun.wait()
                closing = await asyncio.wait_for(inside.post(DATAPROC, json=an_exec(close=True)), 5)
                assert closing.json()["result"] == 1
                assert (await inside.post(DATAPROC, json=an_exec())).status_code == 401
                go.set()
                assert (await running).json()["result"] == "done"
        assert world.directories() == []


@pytest.mark.parametrize(
    ("outcome", "code", "member"),
    [(Crashed(signal=9), -32006, ("signal", 9)), (TimedOut(2.5), -32007, ("timeout", 2.5))],
)
async def test_a_run_that_ends_badly_has_its_id(
    tmp_path: Path, outcome: Outcome, code: int, member: tuple[str, Any]
) -> None:
    """After a run began, its error carries the run's id beside what every error has."""

    async def bad(call: Call, folder: Path) -> Outcome:
        return outcome

    async with a_world(tmp_path, {"plain": {"bad": bad}}) as world, world.client(with_key(await world.key())) as client:
        error = (await client.post(DATAPROC, json=an_exec("bad"))).json()["error"]
    assert error["code"] == code
    assert {"name", "retryable", "request_id", "run_id"} <= error["data"].keys()
    assert error["data"][member[0]] == member[1]


async def test_a_trusted_gateway_names_the_session(world: World) -> None:
    """With the gateway's secret an id opens its directory at first use and finds it again."""
    async with world.client(GATEWAY | {"Xdata-Session-Id": "their-session-1"}) as gateway:
        answers = [await gateway.post(DATAPROC, json=an_exec()) for _ in range(2)]
        assert [answer.json()["result"] for answer in answers] == [1, 2]
        assert answers[0].headers["xdata-session-id"] == "their-session-1"
        view = (await call(gateway, "session.get_session"))["result"]
    assert view["session_id"] == "their-session-1"


@pytest.mark.parametrize("by_gateway", [True, False])
async def test_a_refused_request_names_its_session_too(
    world: World, client: httpx.AsyncClient, by_gateway: bool
) -> None:
    """405, 415, 413 for a body, 401 for an end: the reply carries `Xdata-Session-Id` as all others do."""
    opened = {"session_id": "their-session-4"} if by_gateway else await open_session(client)
    key = await world.key()
    headers = GATEWAY | {"Xdata-Session-Id": "their-session-4", "Xdata-Key": key.id, "Xdata-Scopes": "session.manage"}
    async with world.client(headers if by_gateway else with_token(opened["access_token"])) as inside:
        refused = [
            await inside.get(DATAPROC),
            await inside.post(DATAPROC, data={"a": "form"}),
            await inside.post(DATAPROC, content=b"1", headers={"Content-Length": str(2**30)}),
        ]
        await call(inside, "session.close_session", {"session_id": opened["session_id"]})
        refused += [await inside.post(DATAPROC, json=an_exec()), await inside.get("/api/v1/dataproc/files/")]
    assert [response.status_code for response in refused] == [405, 415, 413, 401, 401]
    assert {response.headers.get("xdata-session-id") for response in refused} == {opened["session_id"]}


async def test_a_trusted_address_is_the_socket_s(world: World) -> None:
    """A gateway may be known by its address; a forwarded address makes nobody a gateway."""
    headers = {"Xdata-Session-Id": "their-session-2", "X-Forwarded-For": "10.1.2.3"}
    async with world.client(headers, peer="10.1.2.3") as gateway, world.client(headers) as stranger:
        assert (await gateway.post(DATAPROC, json=an_exec())).json()["result"] == 1
        assert (await stranger.post(DATAPROC, json=an_exec())).status_code == 401


async def test_an_id_from_outside_is_dropped(world: World, client: httpx.AsyncClient) -> None:
    """Without trust the header is ignored, also when it names a session that there is."""
    first, second = await open_session(client), await open_session(client)
    headers = with_token(first["access_token"]) | {"Xdata-Session-Id": second["session_id"]}
    async with world.client(headers) as inside:
        response = await inside.post(DATAPROC, json=an_exec())
    assert response.headers["xdata-session-id"] == first["session_id"]
    assert world.executor.calls[-1].session == first["session_id"]


@pytest.mark.parametrize(
    "path", ["/auth/resolve", "/auth/resolve/", "/auth/resolve/any/thing%2F", "/auth/resolve/a%0Ab"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "DELETE", "PROPFIND"])
async def test_forward_auth_says_who_it_is(world: World, client: httpx.AsyncClient, path: str, method: str) -> None:
    """Any method, any path below: 200 with the identity, and 401 for everybody else."""
    opened = await open_session(client)
    async with world.client(with_token(opened["access_token"])) as inside, world.client() as stranger:
        known, unknown = await inside.request(method, path), await stranger.request(method, path)
    assert known.status_code == 200
    assert known.headers["xdata-session-id"] == opened["session_id"]
    assert "dataproc.exec" in known.headers["xdata-scopes"].split()
    assert known.headers["xdata-key"]
    assert unknown.status_code == 401
    assert "www-authenticate" in unknown.headers


async def test_forward_auth_believes_no_gateway(world: World) -> None:
    """A proxy that is a trusted peer passes on its client's headers: they name no session here."""
    headers = GATEWAY | {"Xdata-Session-Id": "their-session-3"}
    async with world.client(headers, peer="10.1.2.3") as proxy:
        assert (await proxy.get("/auth/resolve")).status_code == 401


async def test_forward_auth_fails_closed(world: World, client: httpx.AsyncClient) -> None:
    """A database that does not answer is a 401 too: proxies turn other statuses into errors of their own."""
    await world.database.close()
    response = await client.get("/auth/resolve")
    assert response.status_code == 401
    assert response.headers["retry-after"] == "1"


async def test_a_store_that_is_away_is_told(world: World, client: httpx.AsyncClient) -> None:
    """When credentials cannot be checked, the whole request is refused with 503 and may be tried again."""
    await world.database.close()
    response = await client.post(SESSION, json=a_call("session.open_session"))
    assert response.status_code == 503
    assert response.json()["error"]["data"]["retryable"] is True
    assert response.headers["retry-after"]
