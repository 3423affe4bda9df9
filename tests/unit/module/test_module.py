"""Registration: whole, loud, and at the place of the mistake."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataproc.module import Context, Module, ModuleBroken


def test_a_decorated_function_stays_as_it_is() -> None:
    """Authors can call their methods in tests."""
    module = Module("tried")

    @module.method(timeout=3)
    def double(n: int) -> int:
        return 2 * n

    assert double(4) == 8
    assert module.methods["double"].options.timeout == 3


def test_the_description_is_json() -> None:
    """All that is published can be written as JSON, in a stable shape."""
    module = Module("tried", version="1", description="Tried.", fork=False)

    @module.method("a-name", input="table", output=["model"], memory=2**30)
    def method(ctx: Context, n: int = 1) -> list[int]:
        """What it does.

        At length.
        """
        return [n]

    told = json.loads(json.dumps(module.describe()))
    assert {name: told[name] for name in ("name", "version", "description", "fork")} == {
        "name": "tried", "version": "1", "description": "Tried.", "fork": False
    }  # fmt: skip
    [one] = told["methods"]
    assert (one["name"], one["description"], one["returns"]) == ("a-name", "What it does.\n\nAt length.", "value")
    assert (one["input"], one["output"], one["memory"]) == (["table"], ["model"], 2**30)
    assert one["result"]["items"] == {"type": "integer"}


def test_a_name_taken_twice_names_both_places() -> None:
    """The second definition is refused, the first stays."""
    module = Module("tried")

    @module.method("run")
    def first() -> int:
        return 1

    with pytest.raises(
        ModuleBroken, match=r"'run' is defined twice: at test_module\.py:\d+ and at test_module\.py:\d+"
    ):

        @module.method("run")
        def second() -> int:
            return 2

    assert module.methods["run"].function is first


@pytest.mark.parametrize("name", [None, "_named"])
def test_private_names_are_not_served(name: str | None) -> None:
    """A name that starts with `_` is the module's own, and its other methods are served all the same."""
    module = Module("tried")

    @module.method(name)
    def _own() -> int:
        return 1

    @module.method
    def served() -> int:
        return _own()

    assert list(module.methods) == ["served"]
    assert served() == 1


@pytest.mark.parametrize("name", ["with space", "é", "a" * 129, "1st"])
def test_some_names_are_refused(name: str) -> None:
    """Those that cannot stand in a scope."""
    module = Module("tried")
    with pytest.raises(ModuleBroken, match="is no name for a method"):
        module.method(name)(lambda: None)
    assert not module.methods


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0}, {"timeout": "3"}, {"timeout": True}, {"grace": -1}, {"memory": 1.5}, {"processes": 0},
        {"retries": None}, {"exclusive": 1}, {"input": ["_x"]}, {"timeout": float("nan")},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    """The reason names the method and the option."""
    module = Module("tried")

    def method() -> None: ...

    with pytest.raises(ModuleBroken, match=f"'method' at .*{next(iter(options))}"):
        module.method(**options)(method)


def test_only_functions_are_methods() -> None:
    """A class or an object is refused."""
    with pytest.raises(ModuleBroken, match="a method is a function"):
        Module("tried").method(print)


@pytest.mark.parametrize("name", ["", "_x", "a b", "x" * 129])
def test_a_modules_name_is_checked(name: str) -> None:
    """An alias must be something that a caller can write."""
    with pytest.raises(ModuleBroken, match="no name for a module"):
        Module(name)


def test_prepare_names_the_method_without_a_schema() -> None:
    """The reason has the method, its place, and the parameter."""
    module = Module("tried")

    @module.method
    def method(*rows: int) -> None: ...

    with pytest.raises(ModuleBroken, match=r"method 'method' \(test_module\.py:\d+\): \*rows has no schema"):
        module.prepare()
