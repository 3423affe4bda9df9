"""Promise: what people import works behind the walls."""

from __future__ import annotations

import os
from typing import Any

import pytest

ROWS = {"a": 2 * sum(range(0, 1000, 2)), "b": 2 * sum(range(1, 1000, 2))}
CPUS = len(os.sched_getaffinity(0))

EXPECTED: dict[str, tuple[dict[str, Any], Any]] = {
    "numpy": ({}, 72204.378),
    "duckdb": ({}, [4999950000, 9]),
    "pandas": ({}, ROWS),
    "polars": ({}, {name: total // 2 for name, total in ROWS.items()}),
    "pyarrow": ({}, [4000, 1000]),
    "matplotlib": ({}, ["89504e47", "%PDF"]),
    "fonts": ({}, [True, True]),
    "sklearn": ({}, [True, 3]),
    "scipy": ({}, 3.0),
    "subprocesses": ({}, ["one", "42", "THREE", 0]),
    "asynchronous": ({}, ["through the loop", 16]),
    "synchronised": ({}, ["done", 2, 7]),
    "temporary": ({}, ["text", "/tmp", "/work"]),
    "time_zones": ({}, ["2026-07-01T14:00:00+02:00", 19, True]),
    "locales": ({}, ["C.UTF-8", "utf-8", "utf-8", "SS", "UTF-8"]),
    "user": ({}, ["worker", "/work", "/work"]),
    "secrets": ({}, [8, "e3b0c442", 36, True]),
    "sqlite": ({}, "wal"),
    "file_systems": ({}, ["text", ["file.txt"]]),
}


@pytest.fixture(scope="module")
def importer(server):
    """One session whose worker imports one library after the other."""
    return server.open_session()


@pytest.mark.parametrize("name", EXPECTED)
def test_it_works(importer, name):
    """The library, or the part of the system, does its work in a worker."""
    params, expected = EXPECTED[name]
    assert importer.exec(f"importer.{name}", **params) == expected


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_pools_of_processes_work(importer, way):
    """multiprocessing's pool and the executor, forked and spawned."""
    assert importer.exec("importer.pool", way=way) == [0, 1, 4, 9, 16]
    assert importer.exec("importer.executor", way=way) == [[0, 1, 4], [0, 1, 4]]


def test_pools_end_each_time(importer):
    """A pool ends its processes by SIGTERM and waits for them, however young they are; one in a hundred hung once."""
    assert importer.exec("importer.pool", way="fork", times=200) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib_works(importer, backend):
    """Every backend, with an array large enough to be shared by a memory map."""
    assert importer.exec("importer.joblib", backend=backend) == [300_000.0] * 4


def test_psutil_works(importer):
    """A process looks at itself, its children and the machine."""
    told = importer.exec("importer.psutil")
    assert told.pop("pids") == [1, 2]
    assert told.pop("children") == []
    assert all(told.values()), told


def test_processors_are_counted(importer):
    """Every way of asking tells a number, and those that heed affinity tell the right one."""
    told = importer.exec("importer.processors")
    assert told[0] == os.cpu_count()
    assert told[1] == CPUS
    assert all(count >= 1 for count in told)
