"""What a run brings to the catalogue: new versions of data sets and models, all of them or none."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import IO, Any

from sqlalchemy import Connection

from dataproc.catalogue.columns import Column, dumped
from dataproc.catalogue.datasets import Datasets
from dataproc.catalogue.models import Models, NewModel
from dataproc.catalogue.names import long_form
from dataproc.catalogue.state import Part, dump_parts
from dataproc.catalogue.store import Store
from dataproc.database import Database
from dataproc.database import catalogue as db
from dataproc.database.tables import micros
from dataproc.errors import Conflict, StorageUnavailable
from dataproc.types import JsonObject


@dataclass(frozen=True, slots=True)
class NewTable:
    """A CSV file that becomes a version. columns: as declared, None to take the data set's own, or infer them."""

    name: str
    file: IO[bytes]
    columns: tuple[Column, ...] | None = None


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that becomes a model. told: as the data part of an upload."""

    told: JsonObject
    file: IO[bytes]


@dataclass(frozen=True, slots=True)
class _Version:
    name: str
    folder: str
    columns: tuple[Column, ...]
    part: Part


class Results:
    """Keeps what runs bring."""

    def __init__(self, database: Database, store: Store, datasets: Datasets, models: Models) -> None:
        self._database, self._store = database, store
        self._datasets, self._models = datasets, models

    async def keep(
        self, key: str, session: str, run: str, tables: Sequence[NewTable], files: Sequence[NewFile]
    ) -> list[str]:
        """Keep all of it; the long names of the versions and the ids of the models.

        Raises CsvRefused (a ValueError), InvalidParams, Conflict, StorageUnavailable; then nothing of it is known.
        """
        if not tables and not files:
            return []
        async with AsyncExitStack() as stack:
            for name in sorted({table.name for table in tables}):
                await stack.enter_async_context(self._datasets.lock(key, name))
            fresh = {table.name: f"datasets/{key}/{table.name}/{uuid.uuid4().hex}" for table in tables}
            versions = [await self._version(key, table, fresh[table.name]) for table in tables]
            models = [await self._models.prepare(key, one.told, one.file, run) for one in files]
            return await self._database.write(
                lambda connection: self._known(connection, key, session, run, versions, models)
            )

    async def _version(self, key: str, table: NewTable, fresh: str) -> _Version:
        found = await self._database.read(lambda connection: db.find_state(connection, key, table.name, None))
        folder = fresh if found is None else found.dataset.folder
        before = None if found is None else found.state.columns
        try:
            columns, part = await asyncio.to_thread(_read, self._store, folder, table, before)
        except OSError as error:
            raise StorageUnavailable("the storage of the catalogue did not answer as it should; try again") from error
        return _Version(table.name, folder, columns, part)

    def _known(
        self,
        connection: Connection,
        key: str,
        session: str,
        run: str,
        versions: Sequence[_Version],
        models: Sequence[NewModel],
    ) -> list[str]:
        now, names = micros(self._database.now()), []
        for version in versions:
            found = db.find_dataset(connection, key, version.name)
            if found is not None and found.folder != version.folder:
                raise Conflict(f"data set {version.name!r} was made by another server meanwhile; try again")
            if found is None and db.find_citation(connection, key, version.name) is not None:
                raise Conflict(f"{version.name!r} is a citation, and no data set; nothing was kept", name=version.name)
            dataset = (
                db.add_dataset(
                    connection,
                    {
                        "key_id": key, "name": version.name, "folder": version.folder, "key_columns": "[]",
                        "session_id": session, "created_at": now,
                    },
                )
                if found is None
                else found.id
            )  # fmt: skip
            row: dict[str, Any] = {
                "dataset_id": dataset, "columns": dumped(version.columns), "parts": dump_parts((version.part,)),
                "revision": 0, "run_id": run, "created_at": now,
            }  # fmt: skip
            names.append(f"ddc:{long_form(version.name, db.add_version(connection, row))}")
        db.add_models(connection, [model.row for model in models])
        return names + [model.row["model_id"] for model in models]


def _read(store: Store, folder: str, table: NewTable, before: str | None) -> tuple[tuple[Column, ...], Part]:
    from dataproc.catalogue import columns as columns_
    from dataproc.catalogue import intake
    from dataproc.catalogue.tables import Tables

    names = intake.read_header(table.file)
    columns = table.columns
    if columns is None and before is not None:
        known = columns_.loaded(before)
        columns = known if {column.name for column in known} == set(names) else None
    if columns is None:
        columns = intake.infer(table.file)
    return columns, Tables(store).write(folder, columns, intake.rows(table.file, columns))
