"""The JSON-RPC endpoints over HTTP: protocol, refusals, batches, notifications."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dataproc.executor import Call
from dataproc.runs import Outcome
from tests.factories import (
    DATAPROC,
    MODULE,
    SESSION,
    World,
    a_call,
    a_world,
    an_exec,
    call,
    open_session,
    with_key,
    with_token,
)

VERSION = "dataproc.get_server_version"
ENDPOINTS = [SESSION, "/api/v2/session/jsonrpc", DATAPROC, MODULE]
EXAMPLES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "jsonrpc.json").read_text())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, concurrent_runs=8, request_limit=2**20, batch_limit=50) as made:
        yield made


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client(with_key(await world.key())) as made:
        yield made


def fits(answer: Any, expected: Any) -> bool:
    """Whether an answer is what an example expects; `*` is anything, an error is compared by its code."""
    if expected == "*":
        return True
    if isinstance(expected, dict):
        return isinstance(answer, dict) and all(
            name in answer and fits(answer[name], value) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return len(answer) == len(expected) and all(map(fits, answer, expected))
    return bool(answer == expected) and type(answer) is type(expected)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["name"])
async def test_examples_of_the_specification(client: httpx.AsyncClient, example: dict[str, Any]) -> None:
    """Every example of JSON-RPC 2.0 is answered as the specification shows."""
    sent = {"Content-Type": "application/json"}
    response = await client.post(DATAPROC, content=example["send"], headers=sent)
    assert response.status_code == example.get("status", 200)
    if example["expect"] is None:
        assert response.content == b""
        return
    answer, expected = response.json(), example["expect"]
    if example.get("any_order"):
        order = sorted(answer, key=str), sorted(expected, key=str)
        assert len(answer) == len(expected)
        assert all(any(fits(each, one) for each in order[0]) for one in order[1])
    else:
        assert fits(answer, expected), answer


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
async def test_only_post_is_taken(client: httpx.AsyncClient, path: str, method: str) -> None:
    """Other methods get 405, the method that is allowed, and an error that JSON-RPC clients can read."""
    response = await client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert (response.json()["error"]["code"], response.json()["id"]) == (-32600, None)


@pytest.mark.parametrize(
    "declared", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"]
)
async def test_a_body_declared_as_a_form_is_told_what_to_add(client: httpx.AsyncClient, declared: str) -> None:
    """curl's default type is refused with the header to add, whatever the body is."""
    response = await client.post(DATAPROC, content=json.dumps(a_call(VERSION)), headers={"Content-Type": declared})
    assert response.status_code == 415
    assert "Content-Type: application/json" in response.json()["error"]["message"]
    assert response.json()["error"]["code"] == -32600


async def test_a_body_without_a_type_is_read(client: httpx.AsyncClient) -> None:
    """No Content-Type at all is believed to be JSON."""
    response = await client.post(DATAPROC, content=json.dumps(a_call(VERSION)))
    assert response.json()["result"]


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("declares", [True, False])
async def test_a_body_above_the_limit(world: World, client: httpx.AsyncClient, declares: bool) -> None:
    """Too large a body is refused with 413, declared or chunked; the bound, its value and the use are named."""
    body = b'"' + b"a" * world.settings.request_limit + b'"'
    response = await client.post(DATAPROC, content=body if declares else chunks(body[:1000], body[1000:]))
    assert response.status_code == 413
    error = response.json()["error"]
    assert (error["code"], error["data"]["name"], error["data"]["limit"]) == (-32015, "too_large", 2**20)
    assert error["data"].get("size") == (len(body) if declares else None)
    assert "DATAPROC_REQUEST_LIMIT" in error["message"]


async def test_a_large_body_is_parsed_all_the_same(client: httpx.AsyncClient) -> None:
    """A body that goes through a thread is answered like any other, good or bad."""
    padding = b'{"pad":"' + b"a" * 300_000 + b'"}'
    good = b'{"jsonrpc":"2.0","method":"dataproc.get_server_version","id":1,"extra":' + padding + b"}"
    assert "result" in (await client.post(DATAPROC, content=good)).json()
    assert (await client.post(DATAPROC, content=good[:-1])).json()["error"]["code"] == -32700


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"APIKey": "nobody", "Secret": "nothing"},
        {"APIKey": "alone"},
        {"Xdata-Session-Token": "f" * 36},
        {"Authorization": "Bearer none"},
    ],
)
@pytest.mark.parametrize("body", [json.dumps(a_call(VERSION)), "broken", "[]"])
async def test_strangers_learn_nothing(world: World, path: str, headers: dict[str, str], body: str) -> None:
    """Without good credentials the whole request is refused before its body is looked at."""
    async with world.client(headers) as stranger:
        response = await stranger.post(path, content=body)
    assert response.status_code == 401
    assert "Bearer" in response.headers["www-authenticate"]
    assert response.json()["id"] is None
    error = response.json()["error"]
    assert (error["code"], error["data"]["name"], error["data"]["retryable"]) == (-32001, "unauthorized", False)
    assert error["data"]["request_id"] == response.headers["x-request-id"]


async def test_a_request_id_is_echoed(client: httpx.AsyncClient) -> None:
    """The client's own name of the request is in the reply, and in its errors."""
    response = await client.post(DATAPROC, json=a_call("no.such"), headers={"X-Request-ID": "my request"})
    assert response.headers["x-request-id"] == "my request"
    assert response.json()["error"]["data"]["request_id"] == "my request"


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_an_unknown_method_points_to_discover(client: httpx.AsyncClient, path: str) -> None:
    """-32601 for a method of another endpoint too."""
    answer = (await client.post(path, json=a_call("dataproc.nothing"))).json()
    assert answer["error"]["code"] == -32601
    assert "rpc.discover" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("params", "faults"),
    [
        ({}, {"module": "missing", "method": "missing"}),
        ({"module": "", "method": 1}, {"module": "string_too_short", "method": "string_type"}),
        ({"module": "plain", "method": "echo", "params": [1]}, {"params": "dict_type"}),
        ({"module": "plain", "method": "echo", "timeout": 0}, {"timeout": "greater_than"}),
        ({"module": "plain", "method": "echo", "timeout": True}, {"timeout": "float_type"}),
        ({"module": "plain", "method": "echo", "timeout": 1e9}, {"timeout": "less_than_equal"}),
        ({"module": "plain", "method": "echo", "close": "yes"}, {"close": "bool_type"}),
        ({"module": "plain", "method": "echo", "idempotency_key": ""}, {"idempotency_key": "string_too_short"}),
        ({"module": "plain", "method": "echo", "idempotency_key": "a\0"}, {"idempotency_key": "value_error"}),
        ({"module": "plain", "method": "echo", "cancel_on_disconnect": 1}, {"cancel_on_disconnect": "bool_type"}),
        (["plain"], {"method": "missing"}),
        (["plain", "echo", {}, {}, {}, "token", 5], {6: "extra_forbidden"}),
    ],
)
async def test_wrong_params_are_told_one_by_one(client: httpx.AsyncClient, params: Any, faults: dict[Any, str]) -> None:
    """-32602 has an entry for each param that is wrong, missing or unknown."""
    error = (await call(client, "dataproc.exec", params))["error"]
    assert error["code"] == -32602
    assert {fault["loc"][0]: fault["type"] for fault in error["data"]["errors"]} == faults


@pytest.mark.parametrize("path", [DATAPROC, MODULE])
async def test_exec_by_name_and_by_position(client: httpx.AsyncClient, path: str) -> None:
    """Both ways of giving params mean the same, at both endpoints; `token` is accepted and ignored."""
    name = "dataproc.exec" if path == DATAPROC else "module.exec"
    members = {"module": "plain", "method": "echo", "input": {"i": 1}, "output": {"o": 2}, "params": {"p": 3}}
    expected = {"input": {"i": 1}, "output": {"o": 2}, "params": {"p": 3}}
    assert (await call(client, name, {**members, "token": "x"}, path=path))["result"] == expected
    assert (await call(client, name, [*members.values(), "x"], path=path))["result"] == expected


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_discover_describes_the_endpoint(client: httpx.AsyncClient, path: str) -> None:
    """`rpc.discover` is an OpenRPC document whose params are in the positional order."""
    document = (await call(client, "rpc.discover", path=path))["result"]
    assert document["openrpc"].startswith("1.3")
    assert all({"name", "params", "result"} <= method.keys() for method in document["methods"])
    methods = {method["name"]: method for method in document["methods"]}
    if path == DATAPROC:
        names = [param["name"] for param in methods["dataproc.exec"]["params"] if "x-by-name-only" not in param]
        assert names == ["module", "method", "input", "output", "params", "token"]


async def test_discover_shows_what_the_caller_may_call(world: World) -> None:
    """A method that the caller's scopes do not allow is not shown, and calling it names the scope."""
    key = await world.key(scopes=["session.open"], grants=["dataproc.exec:plain.append"])
    async with world.client(with_key(key)) as client:
        shown = [method["name"] for method in (await call(client, "rpc.discover"))["result"]["methods"]]
        assert shown == ["dataproc.get_server_version"]
        error = (await call(client, "dataproc.list_modules"))["error"]
        assert (error["code"], error["data"]["scope"]) == (-32002, "dataproc.exec")
        token = (await open_session(client))["access_token"]
    async with world.client(with_token(token)) as client:
        shown = [method["name"] for method in (await call(client, "rpc.discover"))["result"]["methods"]]
        assert "dataproc.exec" in shown
        modules = (await call(client, "dataproc.list_modules"))["result"]["modules"]
        assert [(row["name"], row["methods"]) for row in modules] == [("plain", ["append"])]
        assert (await call(client, "dataproc.exec", ["Plain", "append"]))["result"] == 1
        error = (await call(client, "dataproc.exec", ["PLAIN", "echo"]))["error"]
        assert (error["code"], error["data"]["scope"]) == (-32002, "dataproc.exec:plain.echo")


async def test_openrpc_json_is_the_union(world: World) -> None:
    """`/openrpc.json` has the methods of all endpoints."""
    async with world.client() as client:
        document = (await client.get("/openrpc.json")).json()
    names = {method["name"] for method in document["methods"]}
    assert {"session.open_session", "dataproc.exec", "module.exec"} <= names


async def test_a_fault_of_ours_tells_no_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is no error of the contract is -32603 to the caller; the log has the cause."""

    async def broken(call: Call, folder: Path) -> Outcome:
        raise RuntimeError(f"a secret of {folder}")

    async with (
        a_world(tmp_path, {"plain": {"broken": broken}}) as world,
        world.client(with_key(await world.key())) as client,
    ):
        response = await client.post(DATAPROC, json=an_exec("broken"))
    error = response.json()["error"]
    assert (error["code"], error["data"]["name"]) == (-32603, "internal_error")
    assert str(tmp_path) not in response.text
    assert "secret" not in response.text
