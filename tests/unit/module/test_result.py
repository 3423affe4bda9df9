"""What a returned value becomes as JSON."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pydantic import BaseModel

from dataproc.module import NotJson, Returned
from dataproc.module.result import to_reply

UTC = datetime.UTC


class Colour(enum.Enum):
    RED = "red"


class Model(BaseModel):
    x: float


@dataclasses.dataclass
class Record:
    x: float


def written(value: Any, **options: Any) -> Any:
    reply = to_reply(value, **options)
    assert isinstance(reply, Returned), reply
    return json.loads(reply.payload)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 2.5, "x", None, True]}, {"a": [1, 2.5, "x", None, True]}),
        ((1, 2), [1, 2]),
        ({7}, [7]),
        (datetime.datetime(2026, 1, 31, 9, 30, tzinfo=UTC), "2026-01-31T09:30:00Z"),
        (datetime.date(2026, 1, 31), "2026-01-31"),
        (Colour.RED, "red"),
        (Model(x=1), {"x": 1.0}),
        (Record(x=2), {"x": 2}),
        (Path("a/b"), "a/b"),
        ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
        pytest.param(10**4299, 10**4299, id="longest int"),
        (np.int64(3), 3),
        (np.float32(1.5), 1.5),
        (np.bool_(True), True),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        ([np.datetime64("2026-01-31T09:30:00", "ns")], ["2026-01-31T09:30:00"]),
        (np.longdouble(1.5), 1.5),
        (np.array([1, "a", None], dtype=object), [1, "a", None]),
        (
            [{"at": pd.NaT, "n": pd.NA}, (pd.Timestamp("2026-01-31"), pd.NaT)],
            [{"at": None, "n": None}, ["2026-01-31T00:00:00", None]],
        ),
        (pd.NaT, None),
    ],
)
def test_values_are_written_as_pydantic_and_numpy_users_expect(value: Any, expected: Any) -> None:
    """Each of these types has one JSON form."""
    assert written(value) == expected


@pytest.mark.parametrize(
    "value", [[math.nan], {"a": math.inf}, Model(x=math.nan), Record(x=-math.inf), np.array([1.5, np.nan])]
)
def test_what_is_not_finite_is_null_and_told(value: Any) -> None:
    """NaN and infinities become null, wherever they stand, and a message counts them."""
    reply = to_reply(value)
    assert isinstance(reply, Returned)
    assert b"null" in reply.payload
    assert reply.messages == ("1 value NaN or infinite, written as null",)


def test_a_null_that_was_none_is_not_told() -> None:
    """None is null without a message."""
    assert to_reply([None]) == Returned(b"[null]")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (object(), "object"),
        ([{"deep": print}], "builtin_function_or_method"),
        (int, "type"),
        (b"\xff", "bytes"),
        ("\ud800", "str"),
        pytest.param(10**4300, "int", id="long int"),
        (pd.DataFrame({"a": [1]}), "pandas.DataFrame"),
        (pl.DataFrame({"a": [1]}), "polars.DataFrame"),
        (pa.table({"a": [1]}), "pyarrow.Table"),
    ],
)
def test_what_is_no_json_is_named(value: Any, name: str) -> None:
    """The reply names the innermost type that has no JSON form."""
    reply = to_reply(value)
    assert isinstance(reply, NotJson)
    assert reply.type == name


@pytest.mark.parametrize("value", [nested(300), nested(100_000)], ids=["300", "100000"])
def test_depth_does_not_end_the_process(value: Any) -> None:
    """A value nested too deep is no JSON."""
    assert isinstance(to_reply(value), NotJson)


def test_a_list_that_holds_itself_is_no_json() -> None:
    """A loop is found, not followed."""
    loop: list[Any] = []
    loop.append(loop)
    reply = to_reply(loop)
    assert isinstance(reply, NotJson)
    assert "Circular" in reply.reason


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1.0, None], "b": ["x", None]}),
        pl.DataFrame({"a": [1.0, None], "b": ["x", None]}),
        pa.table({"a": [1.0, None], "b": ["x", None]}),
    ],
)
def test_a_view_returns_a_frame_as_rows(frame: Any) -> None:
    """A method declared as a view may return a data frame; a missing value is null."""
    assert written(frame, view=True) == [{"a": 1.0, "b": "x"}, {"a": None, "b": None}]
    assert to_reply(frame, view=True).messages == ()  # type: ignore[union-attr]


def test_a_long_string_of_digits_is_no_number() -> None:
    """Only ints are held to the bound of digits."""
    assert written({"a": "9" * 5000}) == {"a": "9" * 5000}
