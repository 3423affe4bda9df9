"""What a method returned, as JSON: pydantic's rules, and NumPy's scalars and arrays; a view's data frame as its rows.

NaN, infinities and pandas' missing values are written as null, and a message says how many of the first two there
were. What is no JSON is named, never guessed at.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from dataproc.module.failure import clipped, message_of, type_name
from dataproc.module.reply import NotJson, Returned

INT_DIGITS = 4300  # what Python itself reads back without being asked to
_LONG_NUMBER = re.compile(rb"(?<!\d)\d{%d}" % (INT_DIGITS + 1))
_PREFIX = re.compile(r"^Error serializing to JSON: (\w+: )?")


class _UnknownTypeError(Exception):
    """Stops the serialiser at a value that has no JSON form."""


def to_reply(value: Any, *, view: bool = False) -> Returned | NotJson:
    """The reply for a value. `view` lets a pandas, Polars or pyarrow table be written as its rows."""
    messages: tuple[str, ...] = ()
    unknown: list[str] = []

    def fallback(item: Any) -> Any:
        try:
            return _plain(item)
        except _UnknownTypeError:
            unknown.append(_full_name(item))
            raise

    try:
        if view:
            value = _rows(value)
        try:
            payload = to_json(value, inf_nan_mode="null", fallback=fallback)
        except ValueError:
            if unknown or (timed := _timed(value)) is value:
                raise
            payload = to_json(value := timed, inf_nan_mode="null", fallback=fallback)
        if b"null" in payload and (count := _not_finite(value)):
            messages = (f"{count} value{'s' if count > 1 else ''} NaN or infinite, written as null",)
        if len(payload) > INT_DIGITS and _LONG_NUMBER.search(payload) and _has_long_int(value):
            return NotJson("int", f"an int has more than {INT_DIGITS} digits")
    except Exception as error:
        if unknown:
            return NotJson(unknown[0], _advice(unknown[0], view))
        return NotJson(_full_name(value), clipped(_PREFIX.sub("", message_of(error)), 1000))
    return Returned(payload, messages)


def _plain(item: Any) -> Any:
    """What stands for a value that pydantic does not know. NumPy's are told by their type's module: no import."""
    if type(item).__module__.partition(".")[0] != "numpy":
        if type(item).__name__ == "NAType":  # pandas' missing value
            return None
        raise _UnknownTypeError
    if item.dtype.kind in "mM":  # nanoseconds would come out as bare integers
        item = item.astype(f"{item.dtype.kind}8[us]")
    plain = item.tolist()
    return float(plain) if type(plain) is type(item) else plain  # a longdouble has no Python twin


def _timed(value: Any) -> Any:
    """The value with None for each NaT of pandas, which passes for a datetime; itself where there is none."""

    def timed(item: Any) -> Any:
        if isinstance(item, dict):
            found: Any = {key: timed(one) for key, one in item.items()}
            return found if any(found[key] is not one for key, one in item.items()) else item
        if isinstance(item, list | tuple):
            found = [timed(one) for one in item]
            return found if any(new is not old for new, old in zip(found, item, strict=True)) else item
        return None if type(item).__name__ == "NaTType" else item

    try:
        return timed(value)
    except RecursionError:
        return value


def _rows(value: Any) -> Any:
    """The rows of a data frame as objects; any other value as it is."""
    family = type(value).__module__.partition(".")[0]
    if family == "pandas" and hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.astype(object).where(value.notna(), None).to_dict(orient="records")
    if family == "polars" and hasattr(value, "to_dicts"):
        return value.to_dicts()
    if family == "pyarrow" and hasattr(value, "to_pylist"):
        return value.to_pylist()
    return value


def _walk(value: Any) -> Any:
    """Every value inside a value that was written without an error, so finite and without loops."""
    stack = [value]
    while stack:
        item = stack.pop()
        yield item
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            stack.extend(item)
        elif isinstance(item, BaseModel):
            stack.extend(item.__dict__.values())
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            stack.extend(getattr(item, field.name, None) for field in dataclasses.fields(item))
        elif type(item).__module__ == "numpy" and getattr(item, "dtype", None) is not None and item.dtype.kind in "fO":
            plain = item.tolist()
            stack.append(plain if type(plain) is not type(item) else float(plain))


def _not_finite(value: Any) -> int:
    if value is None:
        return 0
    return sum(1 for item in _walk(value) if isinstance(item, float) and not math.isfinite(item))


def _has_long_int(value: Any) -> bool:
    bound = 10**INT_DIGITS
    return any(isinstance(item, int) and abs(item) >= bound for item in _walk(value))


def _full_name(item: Any) -> str:
    """`pandas.DataFrame`: package and name."""
    family = str(type(item).__module__).partition(".")[0]
    return type_name(item) if family in ("builtins", "module", "__main__") else f"{family}.{type_name(item)}"


def _advice(name: str, view: bool) -> str:
    if name in ("pandas.DataFrame", "polars.DataFrame", "pyarrow.Table") and not view:
        return "declare the method with view=True to return a table, or return its rows"
    return "return numbers, strings, lists, dicts, dataclasses or pydantic models"
