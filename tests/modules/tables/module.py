"""Views of many kinds, and methods that only say that they are."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any, TypedDict

from dataproc import Context, Module

module = Module("tables", description="Views to test with.")


class Fruit(TypedDict):
    """One kind of fruit."""

    name: str
    price: float | None
    stock: int


FRUIT: list[Fruit] = [
    {"name": "apple", "price": 1.5, "stock": 10},
    {"name": "pear", "price": 2.0, "stock": 0},
    {"name": "plum", "price": None, "stock": 10},
    {"name": 'cherry "sweet" \\n', "price": 9.25, "stock": 3},
]


@module.method(view=True)
def fruit() -> list[Fruit]:
    """Four kinds of fruit."""
    return FRUIT


@module.method(view=True)
def counted(ctx: Context, times: int = 1) -> list[dict[str, Any]]:
    """How often this session ran it, in as many rows as asked for."""
    record = ctx.session / "runs"
    record.write_text(record.read_text() + "x" if record.exists() else "x")
    return [{"runs": len(record.read_text()), "row": row} for row in range(times)]


@module.method(view=True)
def said(context: str, server: str, system: str, scope: str, period: str | None = None) -> list[dict[str, Any]]:
    """The parameters that a client sent."""
    return [{"context": context, "server": server, "system": system, "scope": scope, "period": period}]


@module.method(view=True)
def large(rows: int) -> list[dict[str, Any]]:
    """More rows than an answer holds."""
    return [{"number": row, "text": f"row {row} of many", "third": row % 3} for row in range(rows)]


@module.method(view=True)
def gaps() -> list[dict[str, Any]]:
    """A number that is none."""
    return [{"value": 1.0}, {"value": math.nan}, {"other": True}]


@module.method(view=True)
def broken() -> list[dict[str, Any]]:
    """Raises."""
    raise ValueError("there is nothing to see")


@module.method(view=True)
def no_table() -> int:
    """Returns no table."""
    return 1


@module.method(view=True)
def liar(ctx: Context) -> dict[str, Any]:
    """Names a file as its result that is not."""
    (ctx.session / "link").symlink_to(Path("/etc/passwd"))
    return {"$artifact": "link"}


@module.method(view=True)
def endless() -> list[dict[str, Any]]:
    """Waits to be ended."""
    threading.Event().wait()
    return []


@module.method
def no_view() -> list[dict[str, int]]:
    """Returns a table, and is no view."""
    return [{"a": 1}]
