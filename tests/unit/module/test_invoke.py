"""One call of a method: whatever it does becomes a reply, and nothing escapes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dataproc.module import Context, Module, NotJson, Raised, Refused, Reply, Returned

CTX = Context(Path("/session"))


class MuteError(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class LyingError(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise SystemExit(7)


def call(function: Callable[..., Any], **params: Any) -> Reply:
    module = Module("tried")
    module.method("it")(function)
    with closing(module):
        return module.invoke("it", CTX, params)


def raiser(error: BaseException) -> Callable[[], Any]:
    def method() -> int:
        raise error

    return method


def test_the_context_and_the_params_reach_the_function() -> None:
    """Params come by name, the context where its annotation stands."""

    def method(n: int, ctx: Context, m: int = 2) -> list[Any]:
        return [str(ctx.session), n, m]

    assert call(method, n=1) == Returned(b'["/session",1,2]')


def test_a_coroutine_runs_to_its_end() -> None:
    """`async def` methods are awaited; what they leave running is cancelled."""
    left: list[asyncio.Task[Any]] = []

    async def method() -> int:
        left.append(asyncio.create_task(asyncio.Event().wait()))
        await asyncio.sleep(0)
        return 3

    assert call(method) == Returned(b"3")
    assert left[0].cancelled()


def test_calls_of_one_module_share_an_event_loop() -> None:
    """A client that is kept in the cache stays bound to a loop that lives."""
    module, loops = Module("tried"), []

    @module.method
    async def note() -> None:
        loops.append(asyncio.get_running_loop())

    with closing(module):
        for _ in range(2):
            module.invoke("note", CTX, {})
    assert loops[0] is loops[1]


def test_a_generator_is_a_list() -> None:
    """What a generator yields is the result."""

    def method() -> Iterator[int]:
        yield from range(3)

    assert call(method) == Returned(b"[0,1,2]")


def test_wrong_params_name_each_field() -> None:
    """Refused: one entry a field, before the function began."""

    def method(n: int, m: int) -> None:
        raise AssertionError

    reply = call(method, n="x", k=1)
    assert isinstance(reply, Refused)
    assert [(error["loc"], error["type"]) for error in reply.errors] == [
        (["n"], "int_parsing"), (["m"], "missing"), (["k"], "extra_forbidden")
    ]  # fmt: skip


def test_a_validation_error_of_the_body_is_the_methods_fault() -> None:
    """Only the params can be refused; pydantic's error from the body is an exception like any other."""

    class Inner(BaseModel):
        x: int

    def method() -> Any:
        return Inner.model_validate({"x": "no"})

    reply = call(method)
    assert isinstance(reply, Raised)
    assert reply.type == "ValidationError"


def test_nothing_is_true() -> None:
    """A method that is annotated to return nothing answers true, also when it returns something."""

    def method() -> None:
        return 3  # type: ignore[return-value]

    def unsaid():
        return None

    def maybe() -> int | None:
        return None

    assert (call(method), call(unsaid), call(maybe)) == (Returned(b"true"), Returned(b"true"), Returned(b"null"))


def test_an_exception_is_told_in_frames_of_the_module_alone() -> None:
    """Type, message, and a traceback that names no file outside the module's folder."""

    def method() -> int:
        return int("x")

    reply = call(method)
    assert isinstance(reply, Raised)
    assert (reply.type, reply.exit_code) == ("ValueError", None)
    assert "invalid literal" in reply.message
    assert 'File "test_invoke.py"' in reply.traceback
    assert "method.py" not in reply.traceback
    assert str(Path(__file__).parent) not in reply.traceback


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        GeneratorExit(),
        MemoryError(),
        RecursionError(),
        MuteError(),
        LyingError(),
        BaseException("x"),
    ],
)
def test_no_exception_escapes(error: BaseException) -> None:
    """Not those that mean to end the process, and not those whose own methods raise."""
    reply = call(raiser(error))
    assert isinstance(reply, Raised)
    assert reply.type == type(error).__name__


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (0, 0), (3, 3), (-1, 255), ("bye", 1)])
def test_exit_has_its_code(code: Any, expected: int) -> None:
    """`sys.exit` is an exception with the exit code that the process would have had."""

    def method() -> None:
        sys.exit(code)

    reply = call(method)
    assert isinstance(reply, Raised)
    assert (reply.type, reply.exit_code) == ("SystemExit", expected)


@pytest.mark.parametrize("text", ["x" * 10_000_000, "é" * 10_000_000, "\ud800" * 100_000])
def test_a_huge_message_is_bounded(text: str) -> None:
    """Message and traceback hold at most 64 KiB each, whatever is raised."""
    reply = call(raiser(ValueError(text)))
    assert isinstance(reply, Raised)
    assert len(reply.message.encode()) <= 64 * 1024
    assert len(reply.traceback.encode()) <= 64 * 1024


def test_causes_and_groups_are_told() -> None:
    """A traceback shows the cause, and the members of a group."""

    def method() -> None:
        try:
            raise LookupError("first")
        except LookupError as error:
            raise ExceptionGroup("both", [ValueError("second"), error]) from error

    reply = call(method)
    assert isinstance(reply, Raised)
    assert "direct cause" in reply.traceback
    assert "| ValueError: second" in reply.traceback


def test_a_loop_of_causes_ends() -> None:
    """Exceptions that cause each other are shown once each."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    reply = call(raiser(one))
    assert isinstance(reply, Raised)
    assert reply.traceback.count("ValueError: other") == 1


def test_endless_recursion_is_an_exception() -> None:
    """The deepest traceback is shortened."""

    def method(n: int = 0) -> int:
        return method(n + 1)

    reply = call(method)
    assert isinstance(reply, Raised)
    assert reply.type == "RecursionError"


def test_what_is_no_json_is_no_exception() -> None:
    """A result without a JSON form has a reply of its own."""

    def method() -> Any:
        return object()

    assert isinstance(call(method), NotJson)
