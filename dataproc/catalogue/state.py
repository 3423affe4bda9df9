"""`State`: what a data set was at one moment. It stays readable while anything names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from dataproc.catalogue.columns import Column, dumped


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file in the data set's folder."""

    file: str
    rows: int


@dataclass(frozen=True, slots=True)
class State:
    """The columns, and the parts in the order in which their records were put. folder: key in the store."""

    folder: str
    columns: tuple[Column, ...]
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """How many records."""
        return sum(part.rows for part in self.parts)

    @property
    def by_name(self) -> dict[str, Column]:
        """The columns by name."""
        return {column.name: column for column in self.columns}

    @property
    def digest(self) -> str:
        """Names this state's content: parts never change."""
        text = dumped(self.columns) + dump_parts(self.parts)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def keys(self) -> set[str]:
        """The keys of its files in the store."""
        return {f"{self.folder}/{part.file}" for part in self.parts}


def dump_parts(parts: tuple[Part, ...]) -> str:
    """For the database."""
    return json.dumps([[part.file, part.rows] for part in parts])


def load_parts(text: str) -> tuple[Part, ...]:
    """From the database."""
    return tuple(Part(*each) for each in json.loads(text))
