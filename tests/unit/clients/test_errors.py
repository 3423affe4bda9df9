from __future__ import annotations

import pickle

import pytest
from dataproc_client import errors
from dataproc_client.errors import DataprocError, ExecFailed, Overloaded, from_answer

from dataproc.errors import DataprocError as ServersError


def test_mirror_the_server() -> None:
    """The clients have a class of the same name, code and retryability for every error of the server."""
    told = [kind for kind in ServersError.__subclasses__() if kind.__module__ == ServersError.__module__]
    servers = {(kind.__name__, kind.code, kind.name, kind.retryable) for kind in told}
    assert {(kind.__name__, kind.code, kind.name, kind.retryable) for kind in errors.ANSWERED} == servers


@pytest.mark.parametrize("kind", errors.ANSWERED)
def test_found_by_name(kind: type[DataprocError]) -> None:
    """The name decides, since two errors share a code."""
    raised = from_answer({"code": kind.code, "message": "m", "data": {"name": kind.name}})
    assert type(raised) is kind


def test_found_by_code() -> None:
    """A server that gives no name is understood by the code."""
    assert type(from_answer({"code": -32005, "message": "m"})) is ExecFailed


def test_unknown_error_keeps_what_it_says() -> None:
    """An error of a newer server is the root class, with its code, name and retryability."""
    raised = from_answer({"code": -32099, "message": "m", "data": {"name": "novel", "retryable": True}})
    assert (type(raised), raised.code, raised.name, raised.retryable) == (DataprocError, -32099, "novel", True)


def test_carry_data() -> None:
    """What the server told is on the exception."""
    data = {"name": "overloaded", "retryable": True, "retry_after": 2.5, "request_id": "r", "run_id": "u"}
    raised = from_answer({"code": -32010, "message": "busy", "data": data})
    assert isinstance(raised, Overloaded)
    assert (raised.retry_after, raised.request_id, raised.run_id, str(raised)) == (2.5, "r", "u", "overloaded: busy")


def test_survive_pickling() -> None:
    """An error crosses a process pool with all that it carries."""
    raised = from_answer({"code": -32005, "message": "m", "data": {"name": "exec_failed", "type": "KeyError"}})
    back = pickle.loads(pickle.dumps(raised))
    assert (type(back), back.data, back.code) == (ExecFailed, raised.data, -32005)
