"""Promise: whatever a method raises or returns becomes one bounded answer."""

from __future__ import annotations

import pytest

MiB = 2**20


def test_an_error_that_cannot_be_pickled_is_told(session, bystander):
    """Ten megabytes of message are cut, and say so; the type is named."""
    error = session.error("crasher.unpicklable", size=10 * MiB)
    assert error.code == -32005
    assert error.data["type"] == "HostileError"
    assert len(error.data["message"]) < MiB
    assert error.data["message"].startswith("xxxx")


def test_an_error_that_cannot_be_shown_is_told(session, bystander):
    """An exception whose text raises is named by its type."""
    error = session.error("crasher.liar")
    assert (error.code, error.data["type"]) == (-32005, "LyingError")


@pytest.mark.parametrize("kind", ["object", "function", "cyclic", "module", "number", "keys"])
def test_what_is_no_json_is_named(session, bystander, kind):
    """The answer is -32005, and the worker lives on."""
    assert session.error("crasher.no_json", kind=kind).code == -32005
    assert session.exec("crasher.ok")


def test_a_value_too_deep_is_refused(session, bystander):
    """Two hundred thousand lists in each other are an error of the run, or its crash, and no more."""
    assert session.error("crasher.c_recurse").code in (-32005, -32006)
    assert session.exec("crasher.ok")


def test_endless_recursion_is_an_error(session, bystander):
    """RecursionError is answered like any other."""
    assert session.error("crasher.recurse").data["type"] == "RecursionError"


def test_a_hundred_megabytes_do_not_come_inline(session, bystander):
    """A large result is a file of the session, told by its name and size, or refused by the limit of a file."""
    told = session.exec("crasher.large", size=20 * MiB)
    assert told["size"] == 20 * MiB + 2
    assert (session.files / told["$artifact"]).stat().st_size == 20 * MiB + 2
    assert session.error("crasher.large", size=100 * MiB).code == -32005


def test_one_hundred_megabytes_as_an_artifact(own_server):
    """Where files may be that large, 100 MB arrive whole, and the server's memory does not hold them."""
    server = own_server("crasher", WORKER_FILE_SIZE=256 * MiB)
    session = server.open_session()
    told = session.exec("crasher.large", size=100_000_000)
    assert (session.files / told["$artifact"]).stat().st_size == told["size"] == 100_000_002


def test_sys_exit_is_an_error_of_the_run(session, bystander):
    """It is told with its code, and the worker lives on."""
    error = session.error("crasher.soft_exit", code=7)
    assert (error.code, error.data["exit_code"]) == (-32005, 7)


@pytest.mark.parametrize(
    ("method", "params", "told"),
    [
        ("segfault", {}, {"signal": 11}),
        ("abort", {}, {"signal": 6}),
        ("kill", {"number": 9}, {"signal": 9}),
        ("hard_exit", {"code": 3}, {"exit_code": 3}),
        ("hard_exit", {"code": 0}, {"exit_code": 0}),
    ],
)
def test_a_death_is_one_error(session, bystander, method, params, told):
    """The process's end is -32006 with its signal or exit code, and the next call works."""
    error = session.error(f"crasher.{method}", **params)
    assert error.code == -32006
    assert told.items() <= error.data.items()
    assert session.exec("crasher.ok")
