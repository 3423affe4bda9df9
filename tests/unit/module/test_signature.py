"""What a function's signature becomes: schemas, the hidden context, and clear refusals."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import BaseModel, Field

from dataproc.module import Context, ModuleBroken
from dataproc.module.signature import read_signature

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers


class Point(BaseModel):
    x: float
    y: float = 0


def test_names_types_and_defaults_make_a_closed_schema() -> None:
    """The schema is an object that allows no other members, with what the signature says of each."""

    def draw(rows: Annotated[int, Field(gt=0, description="how many")], name: str = "all") -> None: ...

    assert read_signature(draw).params == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "rows": {"type": "integer", "exclusiveMinimum": 0, "description": "how many"},
            "name": {"type": "string", "default": "all"},
        },
        "required": ["rows"],
    }


def test_the_context_is_found_by_annotation_and_hidden() -> None:
    """Whatever its name and place, the parameter annotated Context is no param."""

    def method(before: int, surroundings: Context, after: int) -> None: ...

    signature = read_signature(method)
    assert signature.context == "surroundings"
    assert list(signature.params["properties"]) == ["before", "after"]


@pytest.mark.parametrize("name", ["copy", "json", "schema", "model_config", "class_", "_hidden", "self"])
def test_any_parameter_name_is_a_param(name: str) -> None:
    """Names that mean something to pydantic are names like any other."""
    scope: dict[str, Any] = {}
    exec(f"def method({name}: int): return {name}", scope)
    assert read_signature(scope["method"]).validate({name: 3}) == {name: 3}


def test_a_field_as_default_gives_its_default_and_its_rules() -> None:
    """`n: int = Field(3, le=9)` is optional, 3 when left out, and at most 9."""

    def method(n: int = Field(3, le=9)) -> None: ...

    signature = read_signature(method)
    assert signature.params["properties"]["n"] == {"type": "integer", "default": 3, "maximum": 9}
    assert signature.validate({}) == {"n": 3}


def test_unannotated_parameters_take_anything() -> None:
    """A parameter without an annotation has an open schema."""

    def method(value, other=1): ...

    assert read_signature(method).params["properties"] == {"value": {}, "other": {"default": 1}}


def test_models_and_dates_are_made_of_json() -> None:
    """Params are turned into the types of the annotations."""

    def method(point: Point, day: datetime.date, kinds: set[str]) -> None: ...

    found = read_signature(method).validate({"point": {"x": 1}, "day": "2026-01-31", "kinds": ["a", "a"]})
    assert found == {"point": Point(x=1), "day": datetime.date(2026, 1, 31), "kinds": {"a"}}


@pytest.mark.parametrize(
    ("annotation", "returns"), [("None", "nothing"), ("int", "value"), ("int | None", "value"), ("", "unknown")]
)
def test_the_return_annotation_tells_what_none_means(annotation: str, returns: str) -> None:
    """Annotated None, annotated a value, and not annotated are three different things."""
    scope: dict[str, Any] = {}
    exec(f"def method(){f' -> {annotation}' if annotation else ''}: ...", scope)
    assert read_signature(scope["method"]).returns == returns


def test_a_result_without_a_schema_is_published_as_unknown() -> None:
    """A return annotation of a class that has no JSON Schema makes no broken module."""

    def method() -> object: ...

    class Strange: ...

    method.__annotations__["return"] = Strange
    assert read_signature(method).result is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("*rows", r"\*rows has no schema"),
        ("**rows", r"\*\*rows has no schema"),
        ("rows, /", "positional-only"),
        ("ctx", "write `ctx: Context`"),
        ("a: Context, b: Context", "'a' and 'b' are both a Context"),
        ("rows: Nowhere", "annotation cannot be read: name 'Nowhere' is not defined"),
        ("good: int, bad: Strange", "parameter 'bad' has no JSON Schema"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(text: str, said: str) -> None:
    """The reason names the parameter and what to do."""
    scope: dict[str, Any] = {"Context": Context, "Strange": type("Strange", (), {})}
    exec(f"def method({text}): ...", scope)
    with pytest.raises(ModuleBroken, match=said):
        read_signature(scope["method"])


def test_context_may_be_imported_for_type_checkers_only() -> None:
    """`if TYPE_CHECKING: from dataproc import Context` works with annotations as strings."""
    scope: dict[str, Any] = {}
    exec("def method(ctx: 'Context', n: 'int' = 1): ...", scope)
    assert read_signature(scope["method"]).context == "ctx"


def test_a_name_that_only_checkers_know_is_told() -> None:
    """A param's type must exist when the module runs."""

    def method(amount: OnlyForCheckers) -> None: ...

    with pytest.raises(ModuleBroken, match="OnlyForCheckers"):
        read_signature(method)
