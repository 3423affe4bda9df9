"""What is believed of a request that says it comes from another server of the cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dataproc.settings import Settings
from dataproc.types import Elsewhere
from dataproc.web.forwarding import Forwarding

ELSEWHERE = ("10.0.0.7", 40000)


def forwarding(secret: str | None = "the-secret") -> Forwarding:
    """The room, with workspaces that are all on another node."""

    async def elsewhere(_: str) -> Elsewhere:
        raise AssertionError("a request that was forwarded is not looked up again")

    settings = Settings(_env_file=None, storage_url="memory://x", database_url="sqlite:///x.db", cluster_secret=secret)
    workspaces = SimpleNamespace(elsewhere=elsewhere)
    return Forwarding(SimpleNamespace(settings=settings, workspaces=workspaces))  # type: ignore[arg-type]


def arrived(path: str = "/api/v1/dataproc/files/a", **said: str) -> dict[str, Any]:
    """A request from another machine."""
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in said.items()]
    return {"type": "http", "method": "GET", "path": path, "headers": headers, "client": ELSEWHERE, "query_string": b""}


async def nothing(*_: Any) -> Any:
    raise AssertionError("nothing is read or answered here")


async def test_a_peer_is_vouched_for_by_the_secret() -> None:
    """With the secret the first server's word for the address counts, and neither header goes on to the routes."""
    scope = arrived(dataproc_node="the-secret", dataproc_peer="192.0.2.1", accept="*/*")
    assert await forwarding()(scope, nothing, nothing) is False
    assert scope["client"] == ("192.0.2.1", 0)
    assert scope["headers"] == [(b"accept", b"*/*")]


@pytest.mark.parametrize(("ours", "said"), [("the-secret", "another"), (None, "-"), (None, ""), ("the-secret", "")])
async def test_nobody_else_is_believed(ours: str | None, said: str) -> None:
    """Without the secret, or where there is none, the socket's own address stays."""
    scope = arrived(dataproc_node=said, dataproc_peer="192.0.2.1")
    assert await forwarding(ours)(scope, nothing, nothing) is False
    assert scope["client"] == ELSEWHERE
    assert scope["headers"] == []


async def test_probes_are_answered_here() -> None:
    """Only what may belong to a session is looked at."""
    assert await forwarding()(arrived("/livez"), nothing, nothing) is False
