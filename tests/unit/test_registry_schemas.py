"""The server's check of params, against schemas that come from hostile modules."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dataproc.errors import InvalidParams
from dataproc.module import Module, ModuleBroken
from dataproc.registry.description import read_description
from dataproc.registry.schemas import compile_check

OBJECT = {"type": "object", "additionalProperties": False}


def refused(schema: dict[str, Any], params: dict[str, Any]) -> list[tuple[list[str | int], str]]:
    with pytest.raises(InvalidParams) as caught:
        compile_check(schema)(params)
    return [(error["loc"], error["type"]) for error in caught.value.data["errors"]]


def described(**changes: Any) -> dict[str, Any]:
    module = Module("tried")

    @module.method
    def method(n: int = 1) -> int:
        return n

    told = module.describe()
    told["methods"][0].update(changes)
    return told


def test_each_wrong_field_is_named() -> None:
    """Missing, unexpected and wrong members have an entry each, named as the second check names them."""
    schema = OBJECT | {
        "properties": {"n": {"type": "integer"}, "m": {"type": "string"}, "rows": {"items": {"type": "integer"}}},
        "required": ["m"],
    }
    found = refused(schema, {"n": True, "rows": [1, "2"], "k": 1, "l": 2})
    wrong = [(["n"], "type"), (["rows", 1], "type"), (["m"], "missing")]
    unexpected = [(["k"], "extra_forbidden"), (["l"], "extra_forbidden")]
    assert sorted(found, key=str) == sorted([*wrong, *unexpected], key=str)


def test_a_union_says_what_its_branches_want() -> None:
    """`int | None` refuses a string in words that a caller understands."""
    with pytest.raises(InvalidParams, match='"x" is not of type "integer" or: "x" is not of type "null"'):
        compile_check(OBJECT | {"properties": {"n": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}})({"n": "x"})


def test_good_params_pass() -> None:
    """A valid input raises nothing."""
    compile_check(OBJECT | {"properties": {"n": {"type": "integer"}}})({"n": 10**30})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {},
        {"type": "objekt"},
        OBJECT | {"properties": {"n": {"$ref": "https://example.org/schema"}}},
        OBJECT | {"properties": {"n": {"$ref": "file:///etc/passwd"}}},
        OBJECT | {"properties": {"n": {"$ref": "#/$defs/nowhere"}}},
        OBJECT | {"$id": "https://example.org/"},
        OBJECT | {"properties": {"n": {"$dynamicRef": "#"}}},
        OBJECT | {"properties": {"n": {"pattern": "("}}},
        OBJECT | {"properties": {"n": 3}},
        OBJECT | {"properties": {"n": {"anyOf": [{}, 3]}}},
        OBJECT | {"$defs": []},
    ],
)
def test_a_schema_that_cannot_be_used_breaks_the_module(schema: dict[str, Any]) -> None:
    """Not valid, not of objects, or referring to anything but its own definitions."""
    with pytest.raises(ModuleBroken):
        compile_check(schema)


def test_a_schema_that_multiplies_is_refused() -> None:
    """A small text that stands for millions of parts costs nothing."""
    defs = {f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 8} for level in range(20)}
    with pytest.raises(ModuleBroken, match="too costly"):
        compile_check(OBJECT | {"properties": {"n": {"$ref": "#/$defs/d0"}}, "$defs": {**defs, "d20": {}}})


def test_a_schema_that_refers_to_itself_is_followed_once() -> None:
    """A tree is checked at its first level; what lies deeper is left to the worker, at no cost here."""
    node = {
        "type": "object",
        "properties": {"x": {"allOf": [{"$ref": "#/$defs/Node"}, {"$ref": "#/$defs/Node"}]}, "n": {"type": "integer"}},
    }
    check = compile_check(OBJECT | {"properties": {"tree": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}})
    deep: dict[str, Any] = {"n": 1}
    for _ in range(90):
        deep = {"x": deep}
    began = time.monotonic()
    check({"tree": deep})
    assert time.monotonic() - began < 1
    with pytest.raises(InvalidParams):
        check({"tree": {"n": "x"}})


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|aa)+$", "^(?=a)(a+)+$", "(a*)*\\1b"])
def test_a_catastrophic_pattern_is_bounded(pattern: str) -> None:
    """No pattern takes longer than the length of the text allows; one that would is not matched."""
    check = compile_check(OBJECT | {"properties": {"s": {"type": "string", "pattern": pattern}}})
    began = time.monotonic()
    with pytest.raises(InvalidParams):
        check({"s": "a" * 20_000 + "!"})
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "_private"},
        {"name": "x" * 200},
        {"name": 3},
        {"timeout": -1},
        {"timeout": float("inf")},
        {"timeout": "3"},
        {"memory": 2**70},
        {"retries": 10**6},
        {"exclusive": "yes"},
        {"returns": "perhaps"},
        {"input": ["x"] * 1000},
        {"description": "x" * 100_000},
        {"params": None},
        {"params": {"type": "object", "description": "x" * 300_000}},
        {"result": {"type": "objekt"}},
    ],
)
def test_a_description_is_bounded(changes: dict[str, Any]) -> None:
    """Counts, sizes and types are checked before anything is believed."""
    with pytest.raises(ModuleBroken):
        read_description("tried", described(**changes))


@pytest.mark.parametrize("raw", [None, [], "x", {}, {"name": "m", "methods": 3}])
def test_what_is_no_description_is_refused(raw: Any) -> None:
    """Whatever a zygote says, the answer is ModuleBroken."""
    with pytest.raises(ModuleBroken):
        read_description("tried", raw)


def test_a_method_described_twice_is_refused() -> None:
    """One name, one method."""
    told = described()
    told["methods"] *= 2
    with pytest.raises(ModuleBroken, match="described twice"):
        read_description("tried", told)


def test_a_good_description_is_kept_as_it_was_told() -> None:
    """The method's limits, schema and flags come through."""
    told = read_description("tried", described(timeout=3, memory=2**30, exclusive=True, network=True))
    method = told.methods["method"]
    assert (method.limits.timeout, method.limits.memory, method.limits.network) == (3, 2**30, True)
    assert (method.module, method.exclusive, method.returns) == ("tried", True, "value")
    method.check({"n": 3})
