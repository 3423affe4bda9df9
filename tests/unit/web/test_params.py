"""Params of our own methods: bound by name and by position, with one entry for each fault."""

from __future__ import annotations

from typing import Any

import pytest

from dataproc.errors import InvalidParams
from dataproc.web.params import (
    REQUIRED,
    Param,
    Signature,
    any_text,
    boolean,
    object_,
    or_null,
    seconds,
    string_map,
    text,
    whole,
)


def signature() -> Signature:
    return Signature(
        (
            Param("module", text, {}, ""),
            Param("input", object_, {}, "", {}),
            Param("close", boolean, {}, "", None, by_name=True),
        )
    )


def faults(given: Any) -> list[tuple[Any, str]]:
    with pytest.raises(InvalidParams) as caught:
        signature().bind(given)
    return [(fault["loc"][0], fault["type"]) for fault in caught.value.data["errors"]]


@pytest.mark.parametrize("given", [{"module": "m", "input": {"a": 1}}, ["m", {"a": 1}]])
def test_names_and_positions_bind_the_same(given: Any) -> None:
    """The order of the table is the positional order."""
    assert signature().bind(given) == {"module": "m", "input": {"a": 1}, "close": None}


def test_an_object_given_as_default_is_never_shared() -> None:
    """Two calls do not see each other's default object."""
    shared = signature()
    first, second = shared.bind(["m"]), shared.bind(["m"])
    assert first["input"] == {}
    assert first["input"] is not second["input"]


def test_every_fault_has_an_entry() -> None:
    """Missing, unknown and wrong params are all told at once."""
    assert sorted(faults({"input": 1, "clse": True})) == [
        ("clse", "extra_forbidden"),
        ("input", "dict_type"),
        ("module", "missing"),
    ]


def test_a_param_of_ours_has_no_position() -> None:
    """One value too many is refused by its place, also where a by-name param would come next."""
    assert faults(["m", {}, True]) == [(2, "extra_forbidden")]


@pytest.mark.parametrize("given", [{str(n): 1 for n in range(10_000)}, list(range(10_000)), {"x" * 10**6: 1}])
def test_an_answer_is_not_larger_than_its_question(given: Any) -> None:
    """However many params are wrong, and however long their names, what is told of them is bounded."""
    with pytest.raises(InvalidParams) as caught:
        signature().bind(given)
    assert len(repr(caught.value.data)) < 50_000


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (text, ["a"], ["", 1, None, ["a"], True]),
        (any_text, ["", "a"], [1, None]),
        (boolean, [True, False], [0, 1, "true", None]),
        (object_, [{}, {"a": 1}], [[], None, "a"]),
        (string_map, [{}, {"a": "b"}], [{"a": 1}, [], {"a": None}]),
        (whole(1, 10), [1, 10, 3.0], [0, -1, 11, 1.5, True, "1", None, [1]]),
        (seconds(60), [1, 0.5, 60], [0, -1, 60.1, True, "1", None]),
        (or_null(text), [None, "a"], ["", 1]),
    ],
)
def test_checks(check: Any, good: list[Any], bad: list[Any]) -> None:
    """Each check takes its own kind of value and refuses what merely looks like it."""
    for value in good:
        assert check(value) == value
    for value in bad:
        with pytest.raises(ValueError, match="is to be"):
            check(value)


def test_required_is_not_a_value() -> None:
    """A param without a default has to be sent; null is a value like any other."""
    assert Signature((Param("a", or_null(text), {}, "", REQUIRED),)).bind({"a": None}) == {"a": None}
