"""From a file of the session to the numbers that an estimator takes, and which columns those were made of."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

MAX_WORDS = 100  # different texts of a column, each of which becomes a column of its own
TIMES = [pa.csv.ISO8601, "%Y/%m/%d", "%Y/%m/%d %H:%M:%S"]
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


@dataclass(frozen=True, slots=True)
class Feature:
    """A column as the estimator sees it. words: the texts that are known, for a text column; else None."""

    name: str
    words: tuple[str, ...] | None = None


def place(session: Path, file: str) -> Path:
    """A path inside the session directory. The sandbox is the wall; this tells it kindly."""
    parts = Path(file).parts
    if not parts or file.startswith("/") or ".." in parts or "\0" in file or parts[0] == ".dataproc":
        raise ValueError(f"{file!r} must be a path inside the session directory, like 'data/digits.csv'")
    return session / file


def read(session: Path, file: str, header: bool) -> pa.Table:
    """The table; without a header its columns are c0, c1, …"""
    path = place(session, file)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {file!r} in the session")
    name = path.name.lower()
    if name.endswith(".parquet"):
        return pa.parquet.read_table(path)
    if not name.endswith(SUFFIXES):
        raise ValueError(f"{file!r} is no table: it must end in one of {', '.join(SUFFIXES)}")
    parse = pa.csv.ParseOptions(delimiter="\t" if ".tsv" in name else ",")
    options = pa.csv.ReadOptions(autogenerate_column_names=not header)
    times = pa.csv.ConvertOptions(timestamp_parsers=TIMES)
    with gzip.open(path) if name.endswith(".gz") else path.open("rb") as stream:
        table = pa.csv.read_csv(stream, read_options=options, parse_options=parse, convert_options=times)
    return table if header else table.rename_columns([f"c{number}" for number in range(table.num_columns)])


def digest(session: Path, file: str) -> str:
    """Of the file's bytes: whether a model was trained on this very file."""
    with place(session, file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """One column; ValueError that lists what there is."""
    if name not in table.column_names:
        there = ", ".join(table.column_names[:30])
        raise ValueError(f"there is no column {name!r}; there is: {there}{' …' if table.num_columns > 30 else ''}")
    return table.column(name)


def features(table: pa.Table, names: list[str]) -> list[Feature]:
    """What each column becomes. ValueError for one that nothing can be learnt from."""
    found = []
    for name in names:
        values = column(table, name)
        if not _is_text(values.type):
            _numbers(values, name)
            found.append(Feature(name))
            continue
        words = [str(word) for word in pc.unique(values.drop_null()).to_pylist()]
        if len(words) > MAX_WORDS:
            raise ValueError(
                f"column {name!r} holds {len(words)} different texts, and at most {MAX_WORDS} can be told apart: "
                "leave it out by naming the `features`"
            )
        found.append(Feature(name, tuple(sorted(words))))
    return found


def matrix(table: pa.Table, plan: list[Feature]) -> np.ndarray[Any, Any]:
    """One row a row, one column a number; a text becomes a column of 0 and 1 for each known word."""
    parts = []
    for feature in plan:
        values = column(table, feature.name)
        if feature.words is None:
            parts.append(_numbers(values, feature.name))
        else:
            texts = np.asarray([str(value) for value in values.to_pylist()], dtype=object)
            parts += [(texts == word).astype(float) for word in feature.words]
    return np.column_stack(parts) if parts else np.empty((table.num_rows, 0))


def target(table: pa.Table, name: str) -> tuple[np.ndarray[Any, Any], bool]:
    """The values to be learnt, and whether they are labels, not quantities. ValueError where some are missing."""
    values = column(table, name)
    if values.null_count:
        raise ValueError(f"column {name!r}, which is to be learnt, misses {values.null_count} values")
    if _is_text(values.type) or pa.types.is_boolean(values.type):
        return np.asarray([str(value) for value in values.to_pylist()], dtype=str), True
    numbers = _numbers(values, name)
    whole = pa.types.is_integer(values.type)
    return (numbers.astype(np.int64), len(np.unique(numbers)) <= MAX_WORDS) if whole else (numbers, False)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _numbers(values: pa.ChunkedArray, name: str) -> np.ndarray[Any, Any]:
    """As floats, a missing value as NaN; times as seconds, dates as days."""
    kind = values.type
    try:
        if pa.types.is_date(kind):
            values = values.cast(pa.date32()).cast(pa.int32())
        elif pa.types.is_timestamp(kind):
            values = pc.divide(values.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.float64()), 1e6)
        return np.asarray(values.cast(pa.float64()).to_numpy(), dtype=float)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ValueError(f"column {name!r} is {kind}, from which nothing can be learnt") from None
