"""A view of many rows."""

from __future__ import annotations

import random
from typing import TypedDict

from dataproc import Module

module = Module("bench-views", version="1.0.0", description="Returns a large table.")
CITIES = ("Seattle", "Berlin", "Oslo", "Lima", "Osaka", "Accra")


class Row(TypedDict):
    """One measurement."""

    id: int
    name: str
    city: str
    day: str
    wind: int
    temp: float


@module.method(view=True, timeout=600)
def measured(rows: int) -> list[Row]:
    """That many rows, the same ones each time."""
    draw = random.Random(1)  # noqa: S311
    return [
        {
            "id": number,
            "name": f"station-{draw.randrange(rows)}",
            "city": draw.choice(CITIES),
            "day": f"2012-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02}",
            "wind": draw.randrange(200),
            "temp": draw.randrange(4000) / 100,
        }
        for number in range(rows)
    ]
