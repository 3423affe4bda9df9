"""Scripts of xData modules are held by the same walls, and what they are given stays as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.security.conftest import RpcError, Server, Session

GIVEN = {"table": {"data_ddc": "ddc:made"}, "model": {"model_store_ddc": "ddc:made"}}
MiB = 2**20


@pytest.fixture
def scripted(own_server: Callable[..., Server]) -> Server:
    """A server with the hostile script module."""
    return own_server("scripted", SESSION_BYTES=64 * MiB)


def run(session: Session, method: str, given: Any = None, **params: Any) -> Any:
    """The result of a script, or RpcError."""
    asked = {"module": "scripted", "method": method, "params": params, "input": given or {}}
    token = {"Xdata-Session-Token": session.token}
    return session.server.rpc("/api/v1/dataproc/jsonrpc", "dataproc.exec", asked, token)


def failure(session: Session, method: str) -> RpcError:
    """The error that a script ends with."""
    with pytest.raises(RpcError) as raised:
        run(session, method)
    return raised.value


def test_what_a_script_is_given_stays_as_it_was(server: Server) -> None:
    """Data sets and models are handed over as files that others read too: no script can change them, or their modes,
    read what it was not given, or write beside its tree.
    """
    session, other = server.open_session(), server.open_session()
    assert run(session, "make") is True
    renditions = server.storage / "renditions"
    folders = [str(server.storage), str(renditions), str(server.folder), str(other.files), str(session.files)]
    files = [str(server.storage / "dataproc.db"), "/etc/shadow", str(server.folder / "server.log")]
    assert run(session, "harm", GIVEN, folders=folders, files=files) is True
    kept = {path: path.stat() for path in renditions.rglob("*") if path.is_file()}
    assert run(other, "harm", GIVEN, folders=folders, files=files) is True
    assert kept
    for path, before in kept.items():
        after = path.stat()
        assert (after.st_mode, after.st_mtime_ns, after.st_size) == (before.st_mode, before.st_mtime_ns, before.st_size)


def test_a_planted_link_brings_nothing_out(server: Server, session: Session) -> None:
    """A link in output/ to a file that only the server can read is not followed into the model store."""
    error = failure(session, "plant")
    assert (error.code, error.data["type"]) == (-32005, "OutputRefused")
    with pytest.raises(RpcError) as raised:
        server.rpc(
            "/api/v2/model_store/jsonrpc", "model_store.model.get_info", {"model_store_ddc": "planted"}, server.key
        )
    assert raised.value.code == -32013


def test_a_script_that_fills_the_disk_is_ended(scripted: Server) -> None:
    """What a run writes in its tree counts for its session, and is gone afterwards."""
    session = scripted.open_session()
    error = failure(session, "fill")
    assert (error.code, error.data["name"]) == (-32009, "quota_exceeded")
    assert run(session, "make") is True


def test_nothing_of_a_tree_outlives_a_killed_server(
    scripted: Server, restart: Callable[[Server], Server], until: Callable[..., Any]
) -> None:
    """A server that is killed under a script leaves a tree, which the next one deletes; session/ stays."""
    session = scripted.open_session()
    call = threading.Thread(target=_cut_off, args=(session,))
    call.start()
    begun = session.files.parent / "modules" / "scripted" / "begun"
    until(begun.exists)
    runs = session.files.parent / "modules" / ".runs"
    assert list(runs.glob("*/*/run-*"))
    scripted.process.kill()
    scripted.process.wait()
    call.join()
    restart(scripted)
    until(lambda: not list(runs.glob("*/*/run-*")))
    assert begun.exists()


def _cut_off(session: Session) -> None:
    """A call whose server goes away."""
    with suppress(httpx.HTTPError):
        run(session, "nap")
