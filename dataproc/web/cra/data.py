"""`data`: params for the method, and a page of its rows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from dataproc.registry import MethodInfo, ModuleEntry
from dataproc.tables.table import BLOCK
from dataproc.types import Json
from dataproc.web.cra.asked import DataQuery
from dataproc.web.cra.columns import conditions, orders
from dataproc.web.cra.replies import TOLD
from dataproc.web.cra.rows import Kept, View

_PASSED = ("context", "server", "system", "scope", "period")


class Page(BaseModel):
    """Some rows of a view. rc: below 8 there is data; 4 with messages."""

    rc: int
    viewName: str  # noqa: N815 - the public names
    startRow: int  # noqa: N815
    numRows: int  # noqa: N815
    totalRowCount: int  # noqa: N815
    session: str
    messages: list[str] | None = None
    Rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A view with its params, the whole filter, and parameters that nobody takes."""

    view: View
    filter: str
    unknown: tuple[str, ...]


def asked_view(entry: ModuleEntry, method: MethodInfo, query: DataQuery, more: dict[str, str]) -> Asked:
    """The method gets what it declares; the rest goes with a filter, as a query within a query that was not encoded."""
    schemas = method.params.get("properties")
    takes: dict[str, Any] = schemas if isinstance(schemas, dict) else {}
    said = {name: getattr(query, name) for name in _PASSED if name in takes} | {n: more[n] for n in more if n in takes}
    params = {name: _coerced(text, takes[name]) for name, text in said.items() if text is not None}
    rest = {name: text for name, text in more.items() if name not in takes}
    if query.filter:
        return Asked(View(entry, method, params), "&".join([query.filter, *map("=".join, rest.items())]), ())
    return Asked(View(entry, method, params), "", tuple(rest))


def _coerced(text: str, schema: Any) -> Json:
    """A value of the type that the method declares; what cannot be one stays text, and is refused by the schema."""
    kinds = _kinds(schema)
    if not kinds or "string" in kinds:
        return text
    if kinds & {"boolean"} and text.lower() in ("y", "n", "true", "false"):
        return text.lower() in ("y", "true")
    if "array" in kinds and not text.startswith("["):
        return list(text.split(","))
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value


def _kinds(schema: Any) -> set[str]:
    if not isinstance(schema, dict):
        return set()
    found = [schema, *(each for each in schema.get("anyOf", []) if isinstance(each, dict))]
    return {each["type"] for each in found if isinstance(each.get("type"), str)}


async def page(kept: Kept, asked: Asked, query: DataQuery, session: str) -> Response:
    """The reply: at once, or for many rows as a stream, which needs the session no more. Raises InvalidParams."""
    reply = await asyncio.to_thread(_page, kept, asked, query, session)
    if isinstance(reply, bytes):
        return Response(reply, media_type="application/json")
    return StreamingResponse(reply, media_type="application/json")


def _page(kept: Kept, asked: Asked, query: DataQuery, session: str) -> bytes | Iterator[bytes]:
    table = kept.table
    chosen = kept.shelf.selection(
        kept.name, table, conditions(asked.filter, table.columns), orders(query.sort, table.columns)
    )
    total = table.rows if chosen is None else len(chosen)
    begin = min(query.start_row - 1, total)
    end = total if query.num_rows is None else min(begin + query.num_rows, total)
    messages = [*table.head["messages"], *(f"parameter {name[:100]!r} is not known" for name in asked.unknown)]
    told = {
        "rc": TOLD if messages else 0,
        "viewName": asked.view.method.name,
        "startRow": query.start_row,
        "numRows": end - begin,
        "totalRowCount": total,
        "session": session,
        **({"messages": messages} if messages else {}),
    }
    reply = _stream(json.dumps(told).encode(), table.page(chosen, begin, end))
    return b"".join(reply) if end - begin <= BLOCK else reply


def _stream(head: bytes, rows: Iterator[bytes]) -> Iterator[bytes]:
    yield head[:-1] + b',"Rows":['
    yield from rows
    yield b"]}"
