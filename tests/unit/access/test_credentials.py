"""Credentials as headers give them."""

from __future__ import annotations

import pytest

from dataproc.access import Credentials


@pytest.mark.parametrize("spelling", [str, str.lower, str.upper], ids=["as documented", "lower", "upper"])
def test_names_are_matched_in_any_case(spelling: object) -> None:
    """Proxies and clients spell header names as they like."""
    assert callable(spelling)
    named = {
        "APIKey": "a",
        "Secret": "b",
        "Xdata-Session-Token": "c",
        "Xdata-Gateway-Secret": "d",
        "Xdata-Session-Id": "e",
        "Xdata-Scopes": "f",
        "Xdata-Key": "g",
    }
    raw = [(spelling(name).encode(), value.encode()) for name, value in named.items()]
    assert Credentials.from_headers(raw, "::1") == Credentials("a", "b", "c", "d", "e", "f", "g", "::1")


@pytest.mark.parametrize("value", [b"Bearer t", b"bearer   t ", b"BEARER t"])
def test_a_bearer_is_a_token(value: bytes) -> None:
    """`Authorization: Bearer` is the same as the token's own header."""
    assert Credentials.from_headers([(b"authorization", value)]).token == "t"


@pytest.mark.parametrize("value", [b"Basic dDp0", b"t", b"", b"Bearer"])
def test_other_schemes_are_not_ours(value: bytes) -> None:
    """Credentials for a proxy in front are left alone; an empty bearer is an empty token, which nobody has."""
    assert Credentials.from_headers([(b"authorization", value)]).token in (None, "")


def test_the_tokens_own_header_wins() -> None:
    """A bearer beside it may be meant for a proxy."""
    raw = [(b"authorization", b"Bearer other"), (b"xdata-session-token", b"mine")]
    assert Credentials.from_headers(raw).token == "mine"


def test_a_header_sent_twice_is_no_credential() -> None:
    """Neither the first nor the last wins, so nobody can slip a value in beside a proxy's."""
    raw = [(b"xdata-session-id", b"session-1"), (b"xdata-session-id", b"session-2")]
    assert Credentials.from_headers(raw).session_id == "session-1, session-2"


def test_they_are_not_shown() -> None:
    """A log line that holds them by mistake shows none of them."""
    assert repr(Credentials("aaa", "bbb", "ccc", "ddd", "eee", "fff", "ggg")) == "Credentials(peer=None)"
