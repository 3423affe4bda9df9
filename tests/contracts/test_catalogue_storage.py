"""The catalogue on every kind of storage: data sets, citations, models, and what modules are handed."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dataproc.catalogue import Catalogue
from dataproc.catalogue.names import read_ddc
from dataproc.catalogue.results import NewFile, NewTable
from dataproc.clock import SystemClock
from dataproc.database import Database
from dataproc.errors import Conflict, NotFound
from dataproc.settings import Settings

if TYPE_CHECKING:
    from tests.s3 import S3

COLUMNS: list[Any] = [{"column_name": "id", "data_type": "int"}, {"column_name": "t", "data_type": "text"}]
KEY = "key-1"


@pytest.fixture(params=["local", "memory", "s3", "postgresql"])
async def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Catalogue]:
    """One on that storage, or on local storage with that database."""
    chosen: dict[str, Any] = {"storage_url": str(tmp_path / "storage")}
    if request.param == "memory":
        chosen = {"storage_url": f"memory://{uuid.uuid4().hex}", "cache_dir": tmp_path}
    elif request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        chosen = {"storage_url": f"s3://{s3.bucket()}/prefix", "cache_dir": tmp_path, **s3.settings()}
    url = f"sqlite:///{tmp_path}/x.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").database()
    settings = Settings(_env_file=None, database_url=url, **chosen)
    database = await Database.open(url, SystemClock())
    try:
        yield Catalogue(database, settings, tmp_path / "local")
    finally:
        await database.close()


async def rows(catalogue: Catalogue, label: str, **more: Any) -> list[list[Any]]:
    """The records under a label."""
    asked = {"columns": None, "condition": None, "offset": 0, "limit": None, "order": None, **more}
    return [list(row.values()) for row in json.loads(await catalogue.datasets.get(KEY, label, **asked))]


async def test_records_are_put_changed_and_read(catalogue: Catalogue) -> None:
    """What is put is there, what is updated or deleted is so, and a citation keeps what it cited."""
    datasets = catalogue.datasets
    await datasets.create(KEY, "d", COLUMNS, ["id"], None)
    assert await datasets.put(KEY, "d", [[1, "a"], [2, "b"]], "error") == 2
    await datasets.cite(KEY, "then", "d")
    assert await datasets.put(KEY, "d", [[2, "B"], [3, "c"]], "update") == 2
    assert await datasets.delete_records(KEY, "d", {"=": ["id", 1]}) == 1
    assert await rows(catalogue, "d", order="-id") == [[3, "c"], [2, "B"]]
    assert await rows(catalogue, "then") == [[1, "a"], [2, "b"]]
    await datasets.delete(KEY, "d")
    with pytest.raises(NotFound):
        await rows(catalogue, "d")


async def test_a_label_has_one_meaning(catalogue: Catalogue) -> None:
    """No data set comes under the label of a citation, made by a caller or by a run: it would be read in its place."""
    datasets = catalogue.datasets
    await datasets.create(KEY, "d", COLUMNS, None, None)
    await datasets.put(KEY, "d", [[1, "a"]], "error")
    await datasets.cite(KEY, "then", "d")
    with pytest.raises(Conflict, match="is a citation"):
        await datasets.create(KEY, "then", COLUMNS, None, None)
    with pytest.raises(Conflict, match="is a citation"):
        await catalogue.results.keep(KEY, "session", "run", [NewTable("then", io.BytesIO(b"id,t\n2,b\n"))], [])
    assert await rows(catalogue, "then") == [[1, "a"]]


async def test_what_modules_are_handed(catalogue: Catalogue) -> None:
    """A state as CSV, made once and readable by workers; a model as its file."""
    await catalogue.datasets.create(KEY, "d", COLUMNS, None, None)
    await catalogue.datasets.put(KEY, "d", [[1, "a,b"]], "error")
    found = await catalogue.datasets.resolve(KEY, read_ddc("ddc:d"))
    first, second = await catalogue.renditions.csv(found), await catalogue.renditions.csv(found)
    assert (first, first.name, first.read_text()) == (second, "d.csv", 'id,t\n1,"a,b"\n')
    await catalogue.models.put(KEY, {"model_store_ddc": "s"}, io.BytesIO(b"weights"))
    [model] = await catalogue.models.find(KEY, "s", None, 0, 10, None)
    file = await catalogue.renditions.model(model)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"weights", 0o444)


async def test_results_are_kept_all_or_none(catalogue: Catalogue) -> None:
    """A table that is none among the outputs keeps the others from being known."""
    good, bad = NewTable("g", io.BytesIO(b"id,t\n1,x\n")), NewTable("b", io.BytesIO(b"id,id\n1,2\n"))
    model = NewFile({"model_store_ddc": "s"}, io.BytesIO(b"w"))
    with pytest.raises(ValueError, match="a name twice"):
        await catalogue.results.keep(KEY, "session", "run", [good, bad], [model])
    with pytest.raises(NotFound):
        await rows(catalogue, "g")
    kept = await catalogue.results.keep(KEY, "session", "run", [good, good], [model])
    assert len(kept) == 3
    assert await rows(catalogue, kept[0]) == await rows(catalogue, "g") == [[1, "x"]]
