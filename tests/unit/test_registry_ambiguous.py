"""Which params leave open what a value means."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from dataproc import Context, Module
from dataproc.registry.ambiguous import ambiguities
from dataproc.registry.description import read_description


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


def told(kind: Any) -> list[str]:
    """The ambiguities of a method with one param of that type."""
    module = Module("m")

    def method(ctx: Context, value: Any) -> int:
        return 1

    method.__annotations__["value"] = kind
    module.method(method)
    return ambiguities(read_description("m", module.describe()).methods["method"])


@pytest.mark.parametrize(
    "kind",
    [
        int, str | None, list[int], dict[str, float], Literal["a", 1], str | list[str], int | str, tuple[int, str],
        Annotated[Any, Field(description="any JSON, kept as it is")], Cat,
        Annotated[Cat | Dog, Field(discriminator="kind")],
    ],
)  # fmt: skip
def test_what_is_clear_is_let_pass(kind: Any) -> None:
    """Types of which a JSON value can be one only, and any JSON where that is said."""
    assert told(kind) == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Any, "any JSON is taken"),
        (list, "items of a list without a type"),
        (list[Any], "items of a list without a type"),
        (dict, "values of an object without a type"),
        (list[dict[str, Any]], "its items: values of an object without a type"),
        (int | float, "can be integer and number"),
        (list[int] | list[str], "can be array and array"),
        (Cat | Dog, "can be Cat and Dog"),
        (int | Any, "one of its alternatives is any JSON"),
    ],
)
def test_what_is_ambiguous_is_named_with_the_reason(kind: Any, said: str) -> None:
    """One line, which begins with the param."""
    (line,) = told(kind)
    assert line.startswith("param 'value'")
    assert said in line
