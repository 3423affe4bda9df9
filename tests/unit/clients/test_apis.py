from __future__ import annotations

import math

import pytest
from dataproc_client.errors import ExecFailed, Forbidden, InvalidParams, SessionEnded, Unauthorized
from xdata_dataproc import Client
from xdata_dataproc.client import ApiV2 as DataprocApi
from xdata_session.client import ApiV2 as SessionApi

from .conftest import Reply, Sent, Station, refusal, result

OPENED = {"access_token": "tok", "expires_in": 60, "session_id": "sid"}


def test_exec_sends_the_contract(station: Station) -> None:
    """All members of exec are sent, by name, to the very address, with the token as header."""
    DataprocApi(f"{station.url}/api/v1/dataproc/jsonrpc", session_token="t").exec("m", "f", timeout=3, close=None)
    sent = station.sent[0]
    assert sent.target == "/api/v1/dataproc/jsonrpc"
    assert sent.rpc["method"] == "dataproc.exec"
    assert sent.rpc["params"] == {"module": "m", "method": "f", "input": {}, "output": {}, "params": {}, "timeout": 3}
    assert sent.headers["Xdata-Session-Token"] == "t"
    assert "APIKey" not in sent.headers


def test_key_and_secret_are_headers(station: Station) -> None:
    """A key authenticates by its two headers."""
    station.answer = result({"active": True})
    assert SessionApi(station.url, "key", "secret").verify_session_token("t") == {"active": True}
    assert (station.sent[0].headers["APIKey"], station.sent[0].headers["Secret"]) == ("key", "secret")


def test_session_api(station: Station) -> None:
    """Each call of the session API sends its params and gives the bare result."""
    api = SessionApi(station.url, "k", "s")
    station.answer = result(OPENED)
    assert api.open_session(expires_in=60, name="n") == OPENED
    assert api.open_session() == OPENED
    assert api.get_session(token="tok") == OPENED
    station.answer = result(True)
    assert api.close_session("tok") is True
    assert [(sent.rpc["method"], sent.rpc["params"]) for sent in station.sent] == [
        ("session.open_session", {"expires_in": 60, "name": "n"}),
        ("session.open_session", {}),
        ("session.get_session", {"token": "tok"}),
        ("session.close_session", {"token": "tok"}),
    ]


@pytest.mark.parametrize("status", [200, 401])
def test_errors_are_raised(station: Station, status: int) -> None:
    """An error is raised whether it comes inside a 200 or with the whole request's own status."""
    station.answer = refusal(-32003, {"name": "session_ended", "reason": "closed"}, status)
    with pytest.raises(SessionEnded) as raised:
        DataprocApi(station.url, session_token="t").exec("m", "f")
    assert raised.value.data["reason"] == "closed"


def test_nan_is_refused_here(station: Station) -> None:
    """What is no JSON is a ValueError before anything is sent."""
    with pytest.raises(ValueError, match="JSON"):
        DataprocApi(station.url).exec("m", "f", params={"x": math.nan})
    assert not station.sent


def test_one_shot_session_cannot_be_kept(station: Station) -> None:
    """`close=False` with a key alone is refused, since the bare result cannot carry the new token."""
    with pytest.raises(ValueError, match="open_session"):
        DataprocApi(station.url, apikey="k", secret="s").exec("m", "f", close=False)


def test_client_reads_the_environment(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, key, secret and token come from the four variables."""
    monkeypatch.setenv("DATAPROC_URL", f"{station.url}/under/a/prefix/")
    monkeypatch.setenv("DATAPROC_APIKEY", "k")
    monkeypatch.setenv("DATAPROC_SECRET", "s")
    monkeypatch.setenv("DATAPROC_SESSION_TOKEN", "t")
    client = Client()
    client.exec("m.f")
    client.session().exec("m.f")
    by_key, by_token = station.sent
    assert by_key.target == by_token.target == "/under/a/prefix/api/v1/dataproc/jsonrpc"
    assert (by_key.headers.get("APIKey"), by_key.headers.get("Xdata-Session-Token")) == ("k", None)
    assert (by_token.headers.get("APIKey"), by_token.headers.get("Xdata-Session-Token")) == (None, "t")


def test_client_without_a_key(station: Station) -> None:
    """Opening a session without a key says what to set, without asking the server."""
    with pytest.raises(Unauthorized, match="DATAPROC_APIKEY"):
        Client(station.url).open_session()
    with pytest.raises(Unauthorized, match="DATAPROC_SESSION_TOKEN"):
        Client(station.url).session()
    assert not station.sent


def test_session_exec_sorts_its_arguments(station: Station) -> None:
    """Names of the call go into the call, all others into params; the mapping reaches params of any name."""
    Client(station.url).session("t").exec(
        "mod.name.with.dots", {"timeout": "theirs"}, n=1, params=2, timeout=9, input={"a": {}}, idempotency_key="i"
    )
    assert station.sent[0].rpc["params"] == {
        "module": "mod",
        "method": "name.with.dots",
        "input": {"a": {}},
        "output": {},
        "params": {"timeout": "theirs", "n": 1, "params": 2},
        "timeout": 9,
        "idempotency_key": "i",
    }


@pytest.mark.parametrize("name", ["module", "module.", ".method", ""])
def test_name_of_exec(station: Station, name: str) -> None:
    """A name that is not `module.method` is refused here."""
    with pytest.raises(ValueError, match=r"module\.method"):
        Client(station.url).session("t").exec(name)


def test_session_closes_on_leaving(station: Station) -> None:
    """Leaving the block ends the session, with the key."""
    station.answer = result(OPENED)
    with Client(station.url, "k", "s").open_session(expires_in=60) as session:
        assert (session.id, session.token, session.expires_in) == ("sid", "tok", 60)
    close = station.sent[-1]
    assert (close.rpc["method"], close.rpc["params"]) == ("session.close_session", {"token": "tok"})
    assert close.headers["APIKey"] == "k"


def test_close_by_a_key_that_only_opens(station: Station) -> None:
    """A key without `session.manage` leaves the closing to the token."""

    def only_the_token(sent: Sent) -> Reply:
        by_key = "APIKey" in sent.headers
        return (refusal(-32002, {"name": "forbidden"}) if by_key else result(True))(sent)

    station.answer = only_the_token
    Client(station.url, "k", "s").session("tok").close()
    assert station.sent[-1].headers["Xdata-Session-Token"] == "tok"
    station.answer = refusal(-32002, {"name": "forbidden"})
    with pytest.raises(Forbidden):
        Client(station.url, "k", "s").session("tok").close()


def test_close_of_an_ended_session(station: Station) -> None:
    """A session that is over already is closed as wanted."""
    station.answer = refusal(-32003, {"name": "session_ended"}, 401)
    Client(station.url).session("tok").close()


def test_failing_close_does_not_hide_the_error(station: Station) -> None:
    """The block's own error comes out, with the close's as a note."""
    station.answer = refusal(-32602, {"name": "invalid_params"})
    session = Client(station.url).session("t")
    with pytest.raises(ExecFailed) as raised, session:
        raise ExecFailed("the block's own")
    assert raised.value.message == "the block's own"
    assert "invalid_params" in raised.value.__notes__[0]
    with pytest.raises(InvalidParams), session:
        pass


def test_nothing_secret_is_shown(station: Station) -> None:
    """Neither secret nor token is in the text of client and session."""
    client = Client(station.url, "k3y", "s3cret", session_token="t0ken")
    shown = f"{client!r} {client.session()!r} {client.session().files!r}"
    assert not any(word in shown for word in ("k3y", "s3cret", "t0ken"))


def test_modules_and_version(station: Station) -> None:
    """Module lists come without their envelope."""
    client = Client(station.url, "k", "s")
    station.answer = result({"modules": [{"name": "m"}]})
    assert client.modules() == [{"name": "m"}]
    assert DataprocApi(station.url).list_modules() == [{"name": "m"}]
    assert client.module("m") == {"modules": [{"name": "m"}]}
    station.answer = result("1.2")
    assert client.version() == "1.2"
