"""Keys, tokens and credentials on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from dataproc.database.tables import metadata
from dataproc.errors import Conflict, InvalidParams, NotFound, SessionEnded, Unauthorized
from dataproc.types import Principal
from tests.houses import House, open_house


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url, gateway_secret="gate") as house:
        yield house


def _files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def _rows(connection: Connection) -> bytes:
    return repr([connection.execute(select(table)).all() for table in metadata.sorted_tables]).encode()


class TestKeys:
    """What an administrator makes."""

    async def test_a_key_comes_back_without_its_secret(self, house: House) -> None:
        """By id and in the list, with what was asked for."""
        made = await house.keys.create("a", ["session.open"], ["files.read"], 60)
        found = await house.keys.get(made.id)
        assert (found.name, found.scopes, found.grants) == ("a", frozenset({"session.open"}), frozenset({"files.read"}))
        assert found.expires_at is not None
        assert (found.expires_at - found.created_at).total_seconds() == 60
        assert not hasattr(found, "secret")
        assert await house.keys.list() == [found]
        assert made.secret not in repr(made)

    async def test_no_secret_and_no_token_is_in_it(self, house: House, tmp_path: Path) -> None:
        """Only digests are kept: who reads the database can call nothing."""
        made = await house.keys.create("a")
        opened = await house.sessions.open(await house.caller(made))
        kept = await house.database.read(_rows) + await asyncio.to_thread(_files, tmp_path)
        assert made.apikey.encode() in kept
        assert made.secret.encode() not in kept
        assert opened.access_token.encode() not in kept

    async def test_grants_are_the_scopes_unless_named(self, house: House) -> None:
        """A key's tokens may by default do what it may."""
        made = await house.keys.create("a", ["session.open", "files.read"])
        assert made.grants == made.scopes

    async def test_live_keys_have_names_of_their_own(self, house: House) -> None:
        """A name is taken until its key is revoked."""
        made = await house.keys.create("a")
        with pytest.raises(Conflict):
            await house.keys.create("a")
        await house.keys.revoke(made.id)
        await house.keys.create("a")
        assert [key.name for key in await house.keys.list()] == ["a", "a"]

    @pytest.mark.parametrize(
        "wrong", [{"name": ""}, {"name": "a\nb"}, {"expires_in": 0}, {"scopes": ["x"]}, {"grants": []}]
    )
    async def test_what_cannot_be_made_is_refused_by_field(self, house: House, wrong: dict[str, object]) -> None:
        """The error names the field."""
        with pytest.raises(InvalidParams) as refused:
            await house.keys.create(**({"name": "a"} | wrong))  # type: ignore[arg-type]
        assert refused.value.data["errors"][0]["loc"][0] == next(iter(wrong))

    async def test_an_unknown_key_is_not_found(self, house: House) -> None:
        """To look at and to revoke."""
        with pytest.raises(NotFound):
            await house.keys.get("key-0")
        with pytest.raises(NotFound):
            await house.keys.revoke("key-0")

    async def test_revoking_twice_changes_nothing(self, house: House) -> None:
        """The first moment counts."""
        made = await house.keys.create("a")
        first = await house.keys.revoke(made.id)
        house.clock.advance(1)
        assert await house.keys.revoke(made.id) == first


class TestCredentials:
    """Who calls."""

    async def test_a_key_with_its_secret(self, house: House) -> None:
        """Is the key, with its scopes and grants."""
        made = await house.keys.create("a", ["session.open"], ["files.read"])
        principal = await house.caller(made)
        assert principal == Principal(made.id, "key", frozenset({"session.open"}), frozenset({"files.read"}))

    async def test_a_token(self, house: House) -> None:
        """Acts for its session, with the grants of the key that opened it."""
        made = await house.keys.create("a", ["session.open"], ["files.read"])
        opened = await house.sessions.open(await house.caller(made))
        principal = await house.who(token=opened.access_token)
        assert (principal.key, principal.via, principal.session) == (made.id, "token", opened.session.id)
        assert principal.scopes == {"files.read"}
        assert opened.access_token not in (principal.token, principal.session)

    @pytest.mark.parametrize(
        "said",
        [
            {},
            {"api_key": "{apikey}"},
            {"secret": "{secret}"},
            {"api_key": "{apikey}", "secret": ""},
            {"api_key": "{apikey}", "secret": "{secret} "},
            {"api_key": "", "secret": "{secret}"},
            {"api_key": "{secret}", "secret": "{apikey}"},
            {"token": ""},
            {"token": "00000000-0000-4000-8000-000000000000"},
            {"token": "wrong", "api_key": "{apikey}", "secret": "{secret}"},
            {"session_id": "session-1"},
            {"session_id": "session-1", "gateway_secret": "wrong"},
            {"session_id": "short", "gateway_secret": "gate"},
        ],
    )
    async def test_bad_credentials_are_refused(self, house: House, said: dict[str, str]) -> None:
        """None, half, wrong ones; and a bad token beside a good key."""
        made = await house.keys.create("a")
        await house.caller(made)  # the good answer is cached, and must not help the bad ones
        with pytest.raises(Unauthorized):
            await house.who(
                **{name: text.format(apikey=made.apikey, secret=made.secret) for name, text in said.items()}
            )

    async def test_an_id_from_outside_is_dropped(self, house: House) -> None:
        """The request goes on as if it were not there."""
        made = await house.keys.create("a")
        principal = await house.who(api_key=made.apikey, secret=made.secret, session_id="session-1")
        assert principal.session is None

    async def test_an_id_from_a_trusted_peer_decides(self, house: House) -> None:
        """Whatever else the request carries, good or bad."""
        made = await house.keys.create("a")
        opened = await house.sessions.open(await house.caller(made))
        for token in (opened.access_token, "wrong"):
            principal = await house.who(session_id="session-1", gateway_secret="gate", token=token)
            assert principal.session == "gw.session-1"

    async def test_a_trusted_peer_without_an_id_is_like_anyone(self, house: House) -> None:
        """It may pass on a client's own credentials."""
        made = await house.keys.create("a")
        assert (await house.who(api_key=made.apikey, secret=made.secret, gateway_secret="gate")).via == "key"

    async def test_a_gateways_id_never_meets_ours(self, house: House) -> None:
        """A trusted peer that names one of our sessions gets a session of its own."""
        made = await house.keys.create("a")
        opened = await house.sessions.open(await house.caller(made))
        principal = await house.who(session_id=opened.session.id, gateway_secret="gate")
        assert (await house.sessions.adopt(principal)).id != opened.session.id

    async def test_an_expired_key(self, house: House) -> None:
        """Is refused from that instant on, cached or not, and says why; its sessions end with it."""
        made = await house.keys.create("a", expires_in=60.5)
        opened = await house.sessions.open(await house.caller(made))
        assert opened.expires_in == 61
        house.clock.advance(60)
        await house.caller(made)
        house.clock.advance(0.5)
        with pytest.raises(Unauthorized) as refused:
            await house.caller(made)
        assert refused.value.data == {"reason": "expired"}
        with pytest.raises(SessionEnded):
            await house.who(token=opened.access_token)

    async def test_a_revoked_token(self, house: House) -> None:
        """Dies at once and alone: its session lives on."""
        made = await house.keys.create("a")
        opened = await house.sessions.open(await house.caller(made))
        principal = await house.who(token=opened.access_token)
        await house.sessions.tokens.revoke(principal, opened.access_token)
        with pytest.raises(Unauthorized) as refused:
            await house.who(token=opened.access_token)
        assert refused.value.data == {"reason": "revoked"}
        assert not await house.sessions.tokens.verify(await house.caller(made), opened.access_token)
        assert (await house.sessions.live(opened.session.id)).state == "open"


class TestRevocation:
    """A key that is taken back."""

    @pytest.fixture
    async def other(self, database_url: str) -> AsyncIterator[House]:
        async with open_house(database_url) as house:
            yield house

    async def test_here_it_is_seen_at_once(self, house: House) -> None:
        """The key, its tokens and its sessions, although good answers were cached a moment ago."""
        made = await house.keys.create("a")
        opened = await house.sessions.open(await house.caller(made))
        await house.who(token=opened.access_token)
        await house.sessions.live(opened.session.id)
        await house.keys.revoke(made.id)
        with pytest.raises(Unauthorized):
            await house.caller(made)
        for question in (house.who(token=opened.access_token), house.sessions.live(opened.session.id)):
            with pytest.raises(SessionEnded) as ended:
                await question
            assert ended.value.data["reason"] == "revoked"
        with pytest.raises(SessionEnded):
            house.sessions.enter(opened.session.id)

    async def test_elsewhere_it_is_seen_within_a_second(self, house: House, other: House) -> None:
        """Another server on the same file revokes; this one has everything cached."""
        made = await house.keys.create("a")
        opened = await house.sessions.open(await house.caller(made))
        await house.who(token=opened.access_token)
        await house.sessions.live(opened.session.id)
        await other.keys.revoke(made.id)
        house.clock.advance(1)
        with pytest.raises(Unauthorized):
            await house.caller(made)
        with pytest.raises(SessionEnded):
            await house.who(token=opened.access_token)
        with pytest.raises(SessionEnded):
            await house.sessions.live(opened.session.id)
        assert await house.sessions.due(10) == [(opened.session.id, "revoked")]

    async def test_a_cached_key_opens_nothing_more(self, house: House, other: House) -> None:
        """Otherwise a session opened in that second would outlive the revocation."""
        made = await house.keys.create("a")
        principal = await house.caller(made)
        await other.keys.revoke(made.id)
        assert await house.caller(made) == principal
        with pytest.raises(Unauthorized):
            await house.sessions.open(principal)

    async def test_other_keys_live_on(self, house: House) -> None:
        """Revoking ends that key's sessions alone."""
        made, spared = await house.keys.create("a"), await house.keys.create("b")
        opened = await house.sessions.open(await house.caller(spared))
        await house.keys.revoke(made.id)
        assert (await house.who(token=opened.access_token)).key == spared.id
