"""Sessions on a real database: opened, looked up, kept busy, ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from dataproc.database.records import Session
from dataproc.database.statements import find_session
from dataproc.errors import InvalidParams, NotFound, Overloaded, QuotaExceeded, SessionEnded
from dataproc.types import Principal
from tests.houses import House, open_house

DAY = 86400


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url, max_sessions_per_key=5) as house:
        yield house


@pytest.fixture
async def other(database_url: str, house: House) -> AsyncIterator[House]:
    async with open_house(database_url, house.clock) as other:
        yield other


async def end(house: House, session_id: str) -> None:
    await house.sessions.begin_end(session_id, "closed")
    await house.sessions.finish_end(session_id)


async def told(question: object) -> object:
    with pytest.raises(SessionEnded) as ended:
        await question  # type: ignore[misc]
    return ended.value.data["reason"]


def gateway(session_id: str = "session-1") -> Principal:
    return Principal(f"gw.{session_id}", "gateway", frozenset(), session=f"gw.{session_id}")


class TestOpening:
    """`open`."""

    async def test_the_default_life(self, house: House) -> None:
        """Thirty days, from now."""
        _, opened = await house.opened()
        assert opened.expires_in == 2592000
        assert opened.session.state == "open"
        assert (opened.session.expires_at - opened.session.created_at).total_seconds() == 2592000  # type: ignore[operator]

    async def test_a_token_is_no_session_id(self, house: House) -> None:
        """They are two random values."""
        _, opened = await house.opened()
        assert opened.access_token != opened.session.id
        with pytest.raises(NotFound):
            await house.sessions.live(opened.access_token)

    async def test_a_name_given_twice_answers_the_live_session(self, house: House) -> None:
        """With a fresh token, and the life that it has left; the first token is good too."""
        principal = await house.caller(await house.keys.create("k"))
        first = await house.sessions.open(principal, name="job", expires_in=100, labels={"a": "b"})
        house.clock.advance(40)
        second = await house.sessions.open(principal, name="job", expires_in=9999)
        assert second.session == first.session
        assert second.session.labels == {"a": "b"}
        assert second.expires_in == 60
        assert second.access_token != first.access_token
        assert await house.sessions.tokens.verify(principal, first.access_token)

    async def test_names_belong_to_their_key(self, house: House) -> None:
        """Another key's session of that name is another session."""
        one = await house.caller(await house.keys.create("k1"))
        two = await house.caller(await house.keys.create("k2"))
        first, second = [await house.sessions.open(each, name="job") for each in (one, two)]
        assert first.session.id != second.session.id

    @pytest.mark.parametrize("how", ["closed", "expired"])
    async def test_a_name_is_free_when_its_session_is_over(self, house: House, how: str) -> None:
        """Ended, or out of time and not yet noticed."""
        principal = await house.caller(await house.keys.create("k"))
        first = await house.sessions.open(principal, name="job", expires_in=10)
        if how == "closed":
            await house.sessions.begin_end(first.session.id, "closed")
        else:
            house.clock.advance(10)
        second = await house.sessions.open(principal, name="job")
        assert second.session.id != first.session.id
        assert (await house.sessions.get(principal, session_id=first.session.id)).reason == how

    async def test_one_name_at_once_is_one_session(self, house: House, other: House) -> None:
        """Fifty openings of one name, on two servers, in one moment."""
        principal = await house.caller(await house.keys.create("k"))
        opened = await asyncio.gather(
            *(each.sessions.open(principal, name="job") for _ in range(25) for each in (house, other))
        )
        assert len({each.session.id for each in opened}) == 1
        assert len({each.access_token for each in opened}) == 50

    async def test_a_key_has_a_limit(self, house: House) -> None:
        """The error tells limit and use; a close makes room at once."""
        principal = await house.caller(await house.keys.create("k"))
        results = await asyncio.gather(*(house.sessions.open(principal) for _ in range(8)), return_exceptions=True)
        refused = [each for each in results if isinstance(each, Overloaded)]
        opened = [each for each in results if not isinstance(each, BaseException)]
        assert (len(opened), len(refused)) == (5, 3)
        assert refused[0].data == {"bound": "open_sessions", "limit": 5, "used": 5, "retry_after": 60}
        await house.sessions.begin_end(opened[0].session.id, "closed")
        await house.sessions.open(principal)
        with pytest.raises(Overloaded):
            await house.sessions.open(principal)

    async def test_at_the_limit_a_name_still_answers_its_session(self, house: House) -> None:
        """A script that is run again opens nothing new; another name is refused."""
        principal = await house.caller(await house.keys.create("k"))
        first = await house.sessions.open(principal, name="job")
        for _ in range(4):
            await house.sessions.open(principal)
        assert (await house.sessions.open(principal, name="job")).session == first.session
        for name in ("other", None):
            with pytest.raises(Overloaded):
                await house.sessions.open(principal, name=name)

    async def test_a_limit_spares_other_keys(self, house: House) -> None:
        """One key's sessions are no other's."""
        principal = await house.caller(await house.keys.create("k"))
        for _ in range(5):
            await house.sessions.open(principal)
        await house.opened("l")

    async def test_what_another_server_opened_counts(self, house: House, other: House) -> None:
        """The count is made anew, so that a limit holds across servers within half a minute."""
        principal = await house.caller(await house.keys.create("k"))
        await house.sessions.open(principal)
        for _ in range(4):
            await other.sessions.open(principal)
        house.clock.advance(30)
        with pytest.raises(Overloaded):
            await house.sessions.open(principal)

    async def test_a_refused_opening_takes_no_place(self, house: House) -> None:
        """Errors give the place back."""
        principal = await house.caller(await house.keys.create("k"))
        for _ in range(10):
            with pytest.raises(InvalidParams):
                await house.sessions.open(principal, expires_in=0)
        for _ in range(5):
            await house.sessions.open(principal)


class TestLookingUp:
    """`live`, `verify`, `get`, `find_to_close`."""

    async def test_an_open_session_is_live(self, house: House) -> None:
        """And another process sees it too."""
        _, opened = await house.opened()
        assert await house.sessions.live(opened.session.id) == opened.session

    async def test_it_expires_to_the_instant(self, house: House) -> None:
        """Cached or not, noticed or not."""
        principal, opened = await house.opened(expires_in=10)
        house.clock.advance(9.9)
        await house.sessions.live(opened.session.id)
        await house.who(token=opened.access_token)
        assert await house.sessions.tokens.verify(principal, opened.access_token)
        house.clock.advance(0.1)
        assert await told(house.sessions.live(opened.session.id)) == "expired"
        assert await told(house.who(token=opened.access_token)) == "expired"
        assert not await house.sessions.tokens.verify(principal, opened.access_token)

    @pytest.mark.parametrize("jump", [400 * DAY, -400 * DAY])
    async def test_a_jump_of_the_wall_clock_ends_and_revives_nothing(self, house: House, jump: int) -> None:
        """While the server runs the monotonic clock decides."""
        principal, opened = await house.opened(expires_in=10)
        dead = await house.sessions.open(principal, expires_in=1)
        house.clock.advance(5)
        house.clock.jump(jump)
        assert (await house.sessions.live(opened.session.id)).state == "open"
        assert await told(house.sessions.live(dead.session.id)) == "expired"
        assert await house.sessions.due(10) == [(dead.session.id, "expired")]

    async def test_across_restarts_the_wall_clock_decides(self, house: House, database_url: str) -> None:
        """Time goes on while no server runs: this machine's on SQLite; on PostgreSQL its server's, for all alike."""
        _, opened = await house.opened(expires_in=100)
        house.clock.advance(100)
        async with open_house(database_url, house.clock) as later:
            if database_url.startswith("sqlite"):
                assert await told(later.sessions.live(opened.session.id)) == "expired"
            else:
                assert (await later.sessions.live(opened.session.id)).state == "open"

    async def test_tokens_of_others_are_like_unknown_ones(self, house: House) -> None:
        """To verify, to look at, and to close."""
        _, opened = await house.opened("a")
        stranger = await house.caller(await house.keys.create("b"))
        for token in (opened.access_token, "unknown", "", "\ud800"):
            assert not await house.sessions.tokens.verify(stranger, token)
            assert await house.sessions.tokens.find(stranger, token) is None
            with pytest.raises(NotFound, match="no such session"):
                await house.sessions.get(stranger, token=token)

    @pytest.mark.parametrize("session_id", ["00000000-0000-4000-8000-000000000000", "x", "\ud800\0", "gw.session-1"])
    async def test_ids_of_others_are_like_unknown_ones(self, house: House, session_id: str) -> None:
        """An id selects and gives no authority."""
        _, opened = await house.opened("a")
        await house.sessions.adopt(gateway())
        stranger = await house.caller(await house.keys.create("b"))
        for each in (opened.session.id, session_id):
            with pytest.raises(NotFound, match="no such session"):
                await house.sessions.get(stranger, session_id=each)

    async def test_a_key_sees_all_its_sessions(self, house: House) -> None:
        """By token and by id, ended ones too."""
        principal, opened = await house.opened()
        await end(house, opened.session.id)
        for session in (
            await house.sessions.get(principal, token=opened.access_token),
            await house.sessions.get(principal, session_id=opened.session.id),
        ):
            assert (session.state, session.reason) == ("ended", "closed")
        with pytest.raises(InvalidParams):
            await house.sessions.get(principal)

    async def test_a_token_sees_its_session_alone(self, house: House) -> None:
        """Not the other sessions of its key; its own by default."""
        principal, opened = await house.opened()
        second = await house.sessions.open(principal)
        inside = await house.who(token=opened.access_token)
        assert await house.sessions.get(inside) == opened.session
        with pytest.raises(NotFound):
            await house.sessions.get(inside, session_id=second.session.id)
        with pytest.raises(NotFound):
            await house.sessions.get(inside, token=second.access_token)


class TestGateways:
    """`adopt`."""

    async def test_the_first_use_opens_it_once(self, house: House) -> None:
        """Two hundred first calls at once are one session."""
        found = await asyncio.gather(*(house.sessions.adopt(gateway()) for _ in range(200)))
        assert len({each.created_at for each in found}) == 1
        assert found[0].gateway
        assert (found[0].expires_at, found[0].idle_timeout) == (None, DAY)

    async def test_it_ends_by_idleness(self, house: House) -> None:
        """A day after its last use, and says so while its tombstone lasts."""
        await house.sessions.adopt(gateway())
        house.clock.advance(DAY - 1)
        house.sessions.enter("gw.session-1")
        house.sessions.leave("gw.session-1")
        assert await house.sessions.due(10) == []
        house.clock.advance(DAY - 1)
        assert (await house.sessions.adopt(gateway())).state == "open"
        house.clock.advance(1)
        assert await house.sessions.due(10) == [("gw.session-1", "idle")]
        assert await told(house.sessions.adopt(gateway())) == "idle"

    async def test_one_with_a_run_is_never_idle(self, house: House, other: House) -> None:
        """However long the run, for this server and for others."""
        await house.sessions.adopt(gateway())
        house.sessions.enter("gw.session-1")
        for _ in range(3):
            house.clock.advance(DAY - 1)
            assert await house.sessions.due(10) == []
        assert await other.sessions.due(10) == []
        assert await house.sessions.begin_end("gw.session-1", "idle") is None
        assert (await house.sessions.adopt(gateway())).state == "open"
        house.sessions.leave("gw.session-1")
        house.clock.advance(DAY)
        assert await house.sessions.due(10) == []  # the end of the run was activity
        house.clock.advance(DAY)
        assert await house.sessions.due(10) == [("gw.session-1", "idle")]

    async def test_use_survives_a_restart(self, house: House, database_url: str) -> None:
        """What was wound before the stop is read after it."""
        await house.sessions.adopt(gateway())
        house.clock.advance(DAY - 1)
        house.sessions.touch("gw.session-1")
        await house.sessions.wind()
        async with open_house(database_url, house.clock) as later:
            house.clock.advance(DAY - 1)
            assert (await later.sessions.adopt(gateway())).state == "open"


class TestEnding:
    """`begin_end`, `finish_end`, tombstones."""

    async def test_a_closing_session_takes_no_calls(self, house: House) -> None:
        """At once on this server, cached or not."""
        principal, opened = await house.opened()
        await house.sessions.live(opened.session.id)
        await house.who(token=opened.access_token)
        session = await house.sessions.begin_end(opened.session.id, "closed")
        assert session is not None
        assert session.state == "closing"
        assert await told(house.sessions.live(opened.session.id)) == "closing"
        assert await told(house.who(token=opened.access_token)) == "closing"
        with pytest.raises(SessionEnded):
            house.sessions.enter(opened.session.id)
        assert not await house.sessions.tokens.verify(principal, opened.access_token)

    async def test_elsewhere_it_takes_none_within_a_second(self, house: House, other: House) -> None:
        """Another server believes its cache no longer than that."""
        _, opened = await house.opened()
        await other.sessions.live(opened.session.id)
        await other.who(token=opened.access_token)
        await end(house, opened.session.id)
        house.clock.advance(1)
        assert await told(other.sessions.live(opened.session.id)) == "closed"
        assert await told(other.who(token=opened.access_token)) == "closed"

    async def test_an_ended_session_leaves_a_tombstone(self, house: House) -> None:
        """Token and id say why and since when, until it is forgotten; then they are unknown."""
        _, opened = await house.opened()
        await end(house, opened.session.id)
        assert await told(house.who(token=opened.access_token)) == "closed"
        house.clock.advance(30 * DAY)
        assert await house.sessions.forget(10) == 0
        house.clock.advance(0.001)
        assert await house.sessions.forget(10) == 1
        with pytest.raises(NotFound):
            await house.sessions.live(opened.session.id)

    async def test_ending_twice_is_ending_once(self, house: House) -> None:
        """A second reason does not replace the first; what is over or unknown is no error."""
        _, opened = await house.opened()
        first = await house.sessions.begin_end(opened.session.id, "closed")
        assert await house.sessions.begin_end(opened.session.id, "revoked") == first
        await house.sessions.finish_end(opened.session.id)
        assert await house.sessions.begin_end(opened.session.id, "closed") is None
        assert await house.sessions.begin_end("unknown-session", "closed") is None

    async def test_a_session_that_is_not_due_is_not_ended(self, house: House) -> None:
        """A clock that was wound meanwhile spares it, and it goes on taking calls."""
        _, opened = await house.opened(expires_in=10)
        assert await house.sessions.begin_end(opened.session.id, "expired") is None
        house.sessions.enter(opened.session.id)
        assert (await house.sessions.live(opened.session.id)).state == "open"

    async def test_the_end_is_when_the_clock_ran_out(self, house: House) -> None:
        """However late that was noticed."""
        _, opened = await house.opened(expires_in=10)
        house.clock.advance(500)
        session = await house.sessions.begin_end(opened.session.id, "expired")
        assert session is not None
        assert session.ended_at == opened.session.expires_at

    async def test_one_shots_end_with_their_server(self, house: House, database_url: str) -> None:
        """Those that a crash left are closing after the next start; a kept one, and an ordinary one, stay."""
        principal, ordinary = await house.opened()
        shot = await house.sessions.open(principal, one_shot=True)
        kept = await house.sessions.open(principal, one_shot=True)
        await house.sessions.keep(kept.session.id)
        async with open_house(database_url, house.clock) as later:
            assert await later.sessions.end_one_shots() == 1
            assert await later.sessions.due(10) == [(shot.session.id, "closed")]
            for each in (kept, ordinary):
                assert (await later.sessions.live(each.session.id)).state == "open"

    async def test_they_are_counted(self, house: House) -> None:
        """Open and closing ones, for the metrics."""
        principal, opened = await house.opened()
        await house.sessions.open(principal)
        await house.sessions.begin_end(opened.session.id, "closed")
        assert await house.sessions.count() == {"open": 1, "closing": 1}
        await house.sessions.finish_end(opened.session.id)
        assert await house.sessions.count() == {"open": 1, "closing": 0}

    async def test_runs_are_counted(self, house: House) -> None:
        """As many leaves as enters leave nothing."""
        _, opened = await house.opened()
        for _ in range(2):
            house.sessions.enter(opened.session.id)
        assert house.sessions.running(opened.session.id) == 2
        for _ in range(2):
            house.sessions.leave(opened.session.id)
        assert house.sessions.running(opened.session.id) == 0


async def test_two_servers_extend_at_once_within_the_limit(database_url: str) -> None:
    """Of two extensions in one moment, at two servers, both are counted: no more succeed than are allowed."""
    async with (
        open_house(database_url, max_extensions=1, default_expires_in=100) as one,
        open_house(database_url, one.clock, max_extensions=1) as two,
    ):
        principal, _ = await one.opened()
        for _ in range(20):
            session = (await one.sessions.open(principal)).session
            asked = one.sessions.extend(session, 1000), two.sessions.extend(session, 2000)
            done = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(each) for each in done} <= {Session, QuotaExceeded}
            kept = await one.database.read(partial(find_session, session_id=session.id))
            assert kept is not None
            assert kept.extensions == 1
