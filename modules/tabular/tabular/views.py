"""Tables for who reads them page by page."""

from __future__ import annotations

import csv
import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from dataproc import Context

from .database import connected, name, rows_of
from .files import reader_of, source
from .methods import Column, File, module

WEATHER = Path(__file__).with_name("seattle-weather.csv")
ALL = 2**31 - 1


class Day(TypedDict):
    """One day: millimetres, degrees Celsius, metres a second."""

    date: datetime.date
    precipitation: float
    temp_max: float
    temp_min: float
    wind: float
    weather: str


@module.method(view=True, reads_only=True)
def rows(ctx: Context, file: File, columns: list[Column] | None = None) -> list[dict[str, Any]]:
    """The rows of a table file of the session: CSV, Parquet or JSON.

    columns: only these, in this order.
    """
    path = source(ctx.session, file)
    with connected(ctx) as connection:
        relation = connection.sql(f"FROM {reader_of(path)}")
        if columns:
            if missing := [column for column in columns if column not in relation.columns]:
                raise ValueError(f"there is no column {missing[0]!r}; there is: {', '.join(relation.columns)}")
            relation = relation.project(", ".join(name(column) for column in dict.fromkeys(columns)))
        return [dict(zip(relation.columns, row, strict=True)) for row in rows_of(relation, ALL)]


@module.method(view=True, reads_only=True)
def weather(
    period: Annotated[str, Field(pattern=r"^\d{4}(-\d\d){0,2}$", description="A year, month or day: 2012-03.")]
    | None = None,
) -> list[Day]:
    """The weather of Seattle, day by day from 2012 to 2015: a table to try a client with."""
    with WEATHER.open(newline="") as file:
        days = [_day(row) for row in csv.DictReader(file)]
    return [day for day in days if period is None or day["date"].isoformat().startswith(period)]


def _day(row: dict[str, str]) -> Day:
    return Day(
        date=datetime.date.fromisoformat(row["date"].replace("/", "-")),
        precipitation=float(row["precipitation"]),
        temp_max=float(row["temp_max"]),
        temp_min=float(row["temp_min"]),
        wind=float(row["wind"]),
        weather=row["weather"],
    )
