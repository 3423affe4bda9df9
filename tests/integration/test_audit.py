"""The audit log: who did what to keys, tokens and sessions, when and from where; and no secret in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from dataproc.clock import ManualClock
from dataproc.database.audit import Line, Wanted
from dataproc.errors import StorageUnavailable
from dataproc.types import Actor
from tests.factories import DATAPROC, World, a_world, an_exec, call, open_session, with_key, with_token
from tests.houses import House, open_house


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, clock=ManualClock(), forwarded_allow_ips="127.0.0.1") as made:
        yield made


async def lines(house: World | House, **wanted: Any) -> list[Line]:
    """What the log has, once all that was told is written."""
    await house.database.write(lambda connection: None)  # what was told before is committed with it, or earlier
    await house.database.write(lambda connection: None)
    return await house.database.audit.find(Wanted(**wanted))


async def test_the_life_of_a_session(world: World) -> None:
    """Each step is a line with its actor, its key and session, and the caller's address."""
    key = await world.key("robot")
    async with world.client(with_key(key) | {"X-Forwarded-For": "192.0.2.7", "X-Request-ID": "r-1"}) as client:
        opened = await open_session(client, name="job")
        issue = {"session_id": opened["session_id"], "scopes": ["files.read"]}
        narrow = (await call(client, "session.issue_token", issue))["result"]["access_token"]
        async with world.client(with_token(opened["access_token"])) as inside:
            await inside.post(DATAPROC, json=an_exec())
        await call(client, "session.revoke_token", [narrow])
        await call(client, "session.extend_session", {"expires_in": 3_000_000, "token": opened["access_token"]})
        await call(client, "session.close_session", [opened["access_token"]])
    found = await lines(world, key=key.id)
    assert [line.event for line in found] == [
        "key_created",
        "credentials_used",
        "session_opened",
        "token_issued",
        "credentials_used",
        "token_revoked",
        "session_extended",
        "session_ended",
    ]
    ended = found[-1]
    assert (ended.actor, ended.session, ended.client, ended.request_id) == (
        f"key:{key.id}",
        opened["session_id"],
        "192.0.2.7",
        "r-1",
    )
    assert ended.details == {"reason": "closed"}
    assert found[3].details["scopes"] == "files.read"
    assert found[4].actor.startswith("token:")
    everything = str(found)
    for secret in (key.secret, key.apikey, opened["access_token"], narrow):
        assert secret not in everything


async def test_keys_and_operators(world: World) -> None:
    """Made, rotated, revoked, by whom; how many sessions that ended."""
    key = await world.keys.create("robot", by=Actor("operator:ann"))
    async with world.client(with_key(key)) as client:
        await open_session(client)
    await world.keys.rotate(key.id, Actor("operator:bob"))
    await world.keys.revoke(key.id, Actor("operator:cy"))
    await world.keys.revoke(key.id, Actor("operator:dee"))
    told = {line.event: line for line in await lines(world, key=key.id)}
    assert told["key_created"].actor == "operator:ann"
    assert told["key_rotated"].actor == "operator:bob"
    assert (told["key_revoked"].actor, told["key_revoked"].details["sessions"]) == ("operator:cy", 1)


async def test_use_is_told_once_an_hour(world: World) -> None:
    """Which credential from which address: not each call, and again when that is an hour ago."""
    key = await world.key()
    async with world.client(with_key(key)) as client:
        for _ in range(3):
            await client.post(DATAPROC, json=an_exec())
        await client.post(DATAPROC, json=an_exec(), headers={"X-Forwarded-For": "192.0.2.9"})
        world.clock.advance(3601)  # type: ignore[attr-defined]
        await client.post(DATAPROC, json=an_exec())
    used = await lines(world, key=key.id, event="credentials_used")
    assert [line.client for line in used] == ["127.0.0.1", "192.0.2.9", "127.0.0.1"]
    assert all(line.request_id for line in used)


async def test_calls_with_a_key_leave_no_line_of_their_session(world: World) -> None:
    """It is a line of the key's use."""
    key = await world.key()
    async with world.client(with_key(key)) as client:
        await client.post(DATAPROC, json=an_exec())
    assert [line.event for line in await lines(world, key=key.id)] == ["key_created", "credentials_used"]


async def test_filters(database_url: str) -> None:
    """By key, session, event, actor and time; the newest of many, oldest first; and what came after a line."""
    async with open_house(database_url) as house:
        for number in range(5):
            house.database.audit.tell(f"e{number % 2}", Actor(f"a{number}"), key="k", session=f"s{number}")
            house.clock.advance(10)
        every = await lines(house)
        assert [line.actor for line in every] == ["a0", "a1", "a2", "a3", "a4"]
        assert [line.actor for line in await lines(house, limit=2)] == ["a3", "a4"]
        assert [line.actor for line in await lines(house, event="e1")] == ["a1", "a3"]
        assert [line.actor for line in await lines(house, session="s2")] == ["a2"]
        assert [line.actor for line in await lines(house, actor="a3")] == ["a3"]
        assert [line.actor for line in await lines(house, since=house.database.now() - timedelta(seconds=20))] == [
            "a3",
            "a4",
        ]
        assert [line.actor for line in await lines(house, after=every[2].id)] == ["a3", "a4"]
        assert await lines(house, key="other") == []


async def test_a_database_that_is_away_loses_no_line(database_url: str) -> None:
    """What could not be written is written when it is back, each once."""
    async with open_house(database_url) as house:

        def away(connection: Connection) -> None:
            raise StorageUnavailable("away")

        house.database.audit.tell("first", Actor("a"))
        with pytest.raises(StorageUnavailable):
            await house.database.write(away)
        house.database.audit.tell("second", Actor("a"))
        assert [line.event for line in await lines(house)] == ["first", "second"]


async def test_what_was_told_before_a_stop_is_there_after_it(tmp_path: Path) -> None:
    """The stop writes it down."""
    async with open_house(tmp_path) as house:
        house.database.audit.tell("last", Actor("server"))
    async with open_house(tmp_path) as later:
        assert [line.event for line in await lines(later)] == ["last"]


async def test_old_lines_go(tmp_path: Path) -> None:
    """With the rest of what is kept for a while."""
    async with open_house(tmp_path, audit_retention=100) as house:
        house.database.audit.tell("old", Actor("server"))
        house.clock.advance(60)
        house.database.audit.tell("young", Actor("server"))
        house.clock.advance(60)
        assert len(await lines(house)) == 2
        await house.sessions.forget(10)
        assert [line.event for line in await lines(house)] == ["young"]
