"""Which file of the session is meant, and how DuckDB reads it."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

READERS = {
    ".parquet": "read_parquet",
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".json": "read_json",
    ".ndjson": "read_json",
    ".jsonl": "read_json",
}
SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".json", ".json.gz", ".ndjson", ".jsonl")
SHOWN = 20
LOOKED_AT = 10_000


def source(session: Path, file: str) -> Path:
    """The table file of that name or stem; FileNotFoundError lists what is there."""
    path = _inside(session, file)
    if path.is_file():
        return path
    found = find_table(session, file)
    if found is None:
        raise FileNotFoundError(f"there is no file {file!r} in the session; there is: {tables(session)}")
    return found


def target(session: Path, file: str, suffixes: frozenset[str]) -> Path:
    """Where to write; ValueError for a suffix that is none of those."""
    path = _inside(session, file)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{file!r} must end in one of {', '.join(sorted(suffixes))}")
    if path.is_dir():
        raise ValueError(f"{file!r} is a folder")
    return path


def find_table(session: Path, stem: str) -> Path | None:
    """The file that a table's name stands for: the typed Parquet before the CSV that it was made of."""
    if "\0" in stem or len(stem) > 200 or stem.startswith(("/", ".")) or ".." in stem:
        return None
    for suffix in SUFFIXES:
        path = session.resolve() / f"{stem}{suffix}"
        if path.is_file():
            return path
    return None


def reader_of(path: Path, options: str = "") -> str:
    """The table function that reads a file, by its name in the current directory, so that errors show that name.

    options: written in SQL, each after a comma.
    """
    suffix = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix not in READERS:
        raise ValueError(
            f"{path.name!r} is no table: it must be one of {', '.join(READERS)}, CSV and JSON also with .gz"
        )
    # DuckDB reads *, ? and [ in a name as a pattern.
    literal = "".join(f"[{sign}]" if sign in "*?[" else sign for sign in os.path.relpath(path)).replace("'", "''")
    return f"{READERS[suffix]}('{literal}'{options})"


def relative(session: Path, path: Path) -> str:
    """The name that a caller knows the file by."""
    return path.relative_to(session.resolve()).as_posix()


def _inside(session: Path, file: str) -> Path:
    """The sandbox is the wall; this tells it kindly."""
    parts = Path(file).parts
    if not parts or file.startswith("/") or ".." in parts or "\0" in file or parts[0] == ".dataproc":
        raise ValueError(f"{file!r} must be a path inside the session directory, like 'data/weather.csv'")
    return session.resolve() / file


def tables(session: Path) -> str:
    """The table files at the top of the session directory, for messages."""
    with os.scandir(session) as entries:
        found = sorted(entry.name for entry in islice(entries, LOOKED_AT) if entry.name.endswith(SUFFIXES))
    return ", ".join([*found[:SHOWN], "…"] if len(found) > SHOWN else found) or "no CSV, Parquet or JSON file"
