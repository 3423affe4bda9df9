"""What a command prints: JSON for programs, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("-o", "--output", help="How to print.")]


def line(text: str) -> None:
    """Print one line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def as_json(value: Any) -> None:
    """Print JSON, indented."""
    line(json.dumps(value, indent=2, ensure_ascii=False))


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], title: str | None = None) -> None:
    """Print rows under the columns' names; None is shown as a dash, a list by its members."""
    if title:
        line(title)
    _print([[_cell(row.get(column)) for column in columns] for row in rows], columns)


def members(values: Mapping[str, Any]) -> None:
    """Print one thing, a line a member."""
    _print([[name, _cell(value)] for name, value in values.items()], None)


def _print(rows: list[list[str]], columns: Sequence[str] | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    picture = Table(box=None, header_style="bold", pad_edge=False, show_header=columns is not None)
    for title in columns or ("", ""):
        picture.add_column(title, overflow="fold")
    for row in rows:
        picture.add_row(*map(Text, row))  # Text: other people's words hold no markup
    # Cut to the width of a terminal, never of a pipe: there, programs read it.
    Console(width=None if sys.stdout.isatty() else 10_000).print(picture, crop=False)


def result(value: Any) -> None:
    """Print what a method returned, for people: text as it is, what is a table as one, all else as JSON."""
    if isinstance(value, str):
        line(value)
    elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        table(value, list(dict.fromkeys(name for row in value for name in row)))
    elif isinstance(value, dict) and isinstance(value.get("columns"), list) and isinstance(value.get("rows"), list):
        _columns_and_rows(value["columns"], value["rows"], value)
    else:
        as_json(value)


def _columns_and_rows(columns: list[Any], rows: list[Any], whole: dict[str, Any]) -> None:
    names = [str(column.get("name")) if isinstance(column, dict) else str(column) for column in columns]
    if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        as_json(whole)
        return
    _print([[_cell(cell) for cell in row] for row in rows], names)
    if whole.get("truncated"):
        line("… and more rows")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(sorted(map(str, value)) if isinstance(value, set | frozenset) else map(str, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
