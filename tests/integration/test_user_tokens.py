"""The clocks of user tokens, on a database of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dataproc.access.user_tokens import Holder, UserTokens
from dataproc.errors import NotFound, Unauthorized
from dataproc.settings import Settings
from tests.houses import House, open_house

MINUTE = 60.0


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as made:
        yield made


@pytest.fixture
def tokens(house: House) -> UserTokens:
    return UserTokens(house.database, house.settings)


async def a_token(house: House, tokens: UserTokens, name: str = "a") -> tuple[str, Holder]:
    text = await tokens.issue((await house.keys.create(name)).id)
    return text, await tokens.authenticate(text)


async def a_session(house: House, tokens: UserTokens, holder: Holder) -> str:
    opened = await house.sessions.open(holder.principal(), idle_timeout=int(tokens.timeout.total_seconds()))
    await tokens.take(holder, opened.session.id)
    await house.sessions.live(opened.session.id)
    return opened.session.id


@pytest.mark.parametrize(("asked", "found"), [(15, 15), (1, 5), (-3, 5), (0, 5), (5, 5), (1440, 1440), (10**9, 1440)])
def test_the_timeout_is_clamped(asked: int, found: int) -> None:
    """To 5 minutes and one day, silently."""
    assert Settings(cra_timeout_minutes=asked, _env_file=None).cra_timeout_minutes == found


async def test_a_token_expires_by_its_idle_clock(house: House, tokens: UserTokens) -> None:
    """Each use gives it the whole time again; then it is over, and stays so."""
    text, _ = await a_token(house, tokens)
    for _ in range(3):
        house.clock.advance(14 * MINUTE)
        await tokens.authenticate(text)
    house.clock.advance(15 * MINUTE)
    for _ in range(2):
        with pytest.raises(Unauthorized, match="expired"):
            await tokens.authenticate(text)


async def test_a_token_lives_as_long_as_a_session_of_it(house: House, tokens: UserTokens) -> None:
    """Also where the session is used by another door, or has a run under way for longer than the timeout."""
    text, holder = await a_token(house, tokens)
    session = await a_session(house, tokens, holder)
    house.clock.advance(14 * MINUTE)
    house.sessions.touch(session)
    await house.sessions.wind()
    house.clock.advance(14 * MINUTE)
    await tokens.authenticate(text)
    house.sessions.enter(session)
    house.clock.advance(60 * MINUTE)
    assert await tokens.authenticate(text) == holder
    house.sessions.leave(session)


async def test_ended_sessions_keep_no_token_alive(house: House, tokens: UserTokens) -> None:
    """A closed session winds nothing."""
    text, holder = await a_token(house, tokens)
    session = await a_session(house, tokens, holder)
    house.clock.advance(10 * MINUTE)
    house.sessions.touch(session)
    await house.sessions.wind()
    await house.sessions.begin_end(session, "closed")
    assert await tokens.sessions(holder) == []
    house.clock.advance(10 * MINUTE)
    with pytest.raises(Unauthorized):
        await tokens.authenticate(text)


async def test_a_session_is_of_one_token(house: House, tokens: UserTokens) -> None:
    """Another token of the same key does not own it, nor does anybody own one that was not opened this way."""
    _, holder = await a_token(house, tokens)
    session = await a_session(house, tokens, holder)
    other = await tokens.authenticate(await tokens.issue(holder.key))
    await tokens.require(holder, session)
    plain = (await house.sessions.open(holder.principal())).session.id
    for caller, wanted in ((other, session), (holder, plain), (holder, "no-such-session")):
        with pytest.raises(NotFound):
            await tokens.require(caller, wanted)


async def test_a_token_that_was_logged_off_takes_no_session(house: House, tokens: UserTokens) -> None:
    """A log-off that comes while a session is being opened leaves none behind."""
    text, holder = await a_token(house, tokens)
    await tokens.end(holder)
    opened = await house.sessions.open(holder.principal(), idle_timeout=900)
    with pytest.raises(Unauthorized):
        await tokens.take(holder, opened.session.id)
    with pytest.raises(Unauthorized, match="logged off"):
        await tokens.authenticate(text)


async def test_a_token_dies_with_its_key(house: House, tokens: UserTokens) -> None:
    """Revoked or expired, at once."""
    text, holder = await a_token(house, tokens)
    await house.keys.revoke(holder.key)
    with pytest.raises(Unauthorized):
        await tokens.authenticate(text)
    brief = await tokens.issue((await house.keys.create("brief", expires_in=60)).id)
    house.clock.advance(61)
    with pytest.raises(Unauthorized):
        await tokens.authenticate(brief)


async def test_tokens_are_as_good_after_a_restart(tmp_path: Path) -> None:
    """Clocks and log-offs are in the database."""
    async with open_house(tmp_path) as house:
        tokens = UserTokens(house.database, house.settings)
        lives, holder = await a_token(house, tokens)
        ended, other = await a_token(house, tokens, "b")
        await tokens.end(other)
    async with open_house(tmp_path, house.clock) as house:
        tokens = UserTokens(house.database, house.settings)
        assert await tokens.authenticate(lives) == holder
        with pytest.raises(Unauthorized):
            await tokens.authenticate(ended)
