"""The back-end role: who is trusted, and what is believed."""

from __future__ import annotations

import os

import pytest

from dataproc.access import Credentials
from dataproc.access.gateway import Gateways
from dataproc.errors import Unauthorized
from dataproc.settings import Settings


def _gateways(peers: str = "", secret: str | None = None) -> Gateways:
    return Gateways(Settings(gateway_peers=peers, gateway_secret=secret, _env_file=None))


def _from(peer: str | None, **said: str) -> Credentials:
    return Credentials(session_id="session-1", peer=peer, **said)


@pytest.mark.parametrize(
    ("peers", "peer", "trusted"),
    [
        ("", "127.0.0.1", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("192.0.2.7, fd00::/8", "192.0.2.7", True),
        ("192.0.2.7, fd00::/8", "fd00::1", True),
        ("192.0.2.7, fd00::/8", "192.0.2.8", False),
        ("10.0.0.0/8", None, False),
        ("10.0.0.0/8", "unix", False),
        ("10.0.0.0/8", "unix:0", False),
        ("unix", f"unix:{os.getuid()}", True),
        ("unix", "unix:0", True),
        ("unix", "unix:54321", False),
        ("unix", "unix", False),
        ("unix", "127.0.0.1", False),
        ("unix:54321", "unix:54321", True),
        ("unix:54321", "unix:5432", False),
    ],
)
def test_peers_are_trusted_by_their_socket(peers: str, peer: str | None, trusted: bool) -> None:
    """Only by an address in the networks, or the uid at the other end of a unix socket."""
    assert _gateways(peers).trusts(_from(peer)) is trusted


def test_peers_are_trusted_by_the_secret() -> None:
    """The very secret; none is trusted where none was set, an empty one neither."""
    assert _gateways(secret="s3cret").trusts(_from(None, gateway_secret="s3cret"))
    assert not _gateways(secret="s3cret").trusts(_from(None, gateway_secret="s3cret "))
    assert not _gateways().trusts(_from(None, gateway_secret=""))
    assert not _gateways(secret="").trusts(_from(None, gateway_secret=""))


def test_without_more_the_call_has_its_session_alone() -> None:
    """No scopes and no key named: exec and files, and an owner that is no other session's and no key's."""
    principal = _gateways().principal(_from(None))
    assert principal.scopes == {"dataproc.exec", "files.read", "files.write"}
    assert principal.session == principal.key == "gw.session-1"
    assert principal.via == "gateway"


def test_scopes_and_key_are_believed() -> None:
    """Scopes stand between spaces or commas."""
    principal = _gateways().principal(_from(None, scopes="files.read, dataproc.exec:m", key="alice"))
    assert principal.scopes == {"files.read", "dataproc.exec:m"}
    assert principal.key == "alice"


def test_empty_scopes_are_no_scopes() -> None:
    """A gateway that says that the caller may do nothing is believed too."""
    assert _gateways().principal(_from(None, scopes="")).scopes == frozenset()


@pytest.mark.parametrize(
    "said",
    [
        {"session_id": ""},
        {"session_id": "short"},
        {"session_id": "-leading-dash"},
        {"session_id": "session/../1"},
        {"session_id": "gw.session-1"},
        {"session_id": "session-1, session-2"},
        {"session_id": "x" * 129},
        {"session_id": "session-1\n"},
        {"session_id": "sessiön-1"},
        {"session_id": "session-1", "key": "../up"},
        {"session_id": "session-1", "key": "shared"},
        {"session_id": "session-1", "key": "gw.session-2"},
        {"session_id": "session-1", "key": ""},
        {"session_id": "session-1", "scopes": "everything"},
    ],
)
def test_what_cannot_be_an_id_is_refused(said: dict[str, str]) -> None:
    """An id becomes a folder's name: it has a grammar, and the error tells it."""
    with pytest.raises(Unauthorized) as refused:
        _gateways().principal(Credentials(**said))
    assert refused.value.data == {"reason": "invalid"}
