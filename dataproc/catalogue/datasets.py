"""Data sets: made, filled, read, cited. Every call names its owner; what is another's is as if it were not there."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from dataproc.catalogue import columns as columns_
from dataproc.catalogue import records as records_
from dataproc.catalogue.columns import odd_datetime
from dataproc.catalogue.conditions import read_condition
from dataproc.catalogue.names import Ddc, long_form, new_name, read_ddc
from dataproc.catalogue.reading import DeclaredOrder, read_order, rows_as_json
from dataproc.catalogue.renditions import Renditions
from dataproc.catalogue.state import State, dump_parts, load_parts
from dataproc.catalogue.store import Store
from dataproc.database import Database
from dataproc.database import catalogue as db
from dataproc.database.tables import micros, moment
from dataproc.errors import Conflict, InvalidParams, NotFound, StorageUnavailable, TooLarge
from dataproc.types import Json, JsonObject

if TYPE_CHECKING:
    from dataproc.catalogue.tables import Tables

MOST_RECORDS = 100_000  # of one answer
KEPT = 3600.0  # seconds for which parts that nothing names are left to those who may still read them
ATTEMPTS = 5  # at a version that other servers change at the same time
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set in one state. version: id and revision of the version, None for what a citation cites."""

    id: int
    owner: str
    name: str
    key_columns: tuple[str, ...]
    state: State
    version: tuple[int, int] | None = None

    @classmethod
    def of(cls, found: db.Found) -> Dataset:
        """From the database."""
        row, at = found
        state = State(row.folder, columns_.loaded(at.columns), load_parts(at.parts))
        version = (at.id, at.revision) if "revision" in at._mapping else None
        return cls(row.id, row.key_id, row.name, tuple(json.loads(row.key_columns)), state, version)


class Datasets:
    """The data sets of all keys."""

    def __init__(self, database: Database, store: Store, renditions: Renditions) -> None:
        self._database, self._store, self._renditions = database, store, renditions
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    # -- made and deleted -------------------------------------------------------------------------------------------

    async def create(self, key: str, name: str, defs: Json, key_columns: Json, session: str | None) -> JsonObject:
        """Make an empty data set; its dataset_info. Raises InvalidParams, Conflict for a name that there is, be it a
        citation's: a label has one meaning.
        """
        name = new_name(name, "dataset_name")
        columns = columns_.read_columns(defs, "columns")
        keys = records_.key_columns(key_columns, columns)
        now = micros(self._database.now())
        row = {
            "key_id": key, "name": name, "folder": f"datasets/{key}/{name}/{uuid.uuid4().hex}",
            "key_columns": json.dumps(keys), "session_id": session, "created_at": now,
        }  # fmt: skip

        def made(connection: Connection) -> int | None:
            if db.find_citation(connection, key, name) is not None:
                return None
            dataset = db.add_dataset(connection, row)
            version = {"columns": columns_.dumped(columns), "parts": "[]", "revision": 0, "run_id": None}
            db.add_version(connection, {**version, "dataset_id": dataset, "created_at": now})
            return dataset

        try:
            dataset = await self._database.write(made)
        except IntegrityError:
            raise Conflict(f"there is a data set {name!r} already", name=name) from None
        if dataset is None:
            raise Conflict(f"{name!r} is a citation already", name=name)
        return _info({**row, "id": dataset})

    async def delete(self, key: str, name: str) -> None:
        """Delete a data set of the key's own, with its versions and citations. Raises NotFound."""
        ddc = new_name(name, "dataset_name")
        async with self.lock(key, ddc):
            row = await self._database.read(lambda connection: db.find_dataset(connection, key, ddc))
            if row is None or not await self._database.write(lambda connection: db.delete_dataset(connection, row.id)):
                raise _unknown(ddc)
        await self._on_disk(lambda tables: self._store.sweep(row.folder, set(), 0))
        await self._renditions.forget(row.id, set())

    async def listed(self, key: str) -> list[JsonObject]:
        """The dataset_info of every data set that the key may read, by name."""
        rows = await self._database.read(lambda connection: db.list_datasets(connection, key))
        return [_info(row._mapping) for row in rows]

    async def columns(self, key: str, name: str) -> list[JsonObject]:
        """The column_def of each column. Raises NotFound."""
        found = await self.resolve(key, read_ddc(name, "dataset_name"))
        return [column.told(number) for number, column in enumerate(found.state.columns, 1)]

    async def resolve(self, key: str, ddc: Ddc) -> Dataset:
        """A data set that the key may read: its own, else one that is shared with it. Raises NotFound."""

        def find(connection: Connection) -> db.Found | None:
            if (found := db.find_state(connection, key, ddc.name, ddc.version)) is not None:
                return found
            owner = db.owner_of(connection, db.DATASET, key, ddc.name)
            return None if owner is None else db.find_state(connection, owner, ddc.name, ddc.version)

        found = await self._database.read(find)
        if found is None:
            raise _unknown(ddc.name if ddc.version is None else long_form(ddc.name, ddc.version))
        return Dataset.of(found)

    # -- citations --------------------------------------------------------------------------------------------------

    async def cite(self, key: str, label: str, source: str) -> JsonObject:
        """Give what a data set is now a label, under which it can be read whatever changes later. Raises NotFound,
        Conflict for a label that there is.
        """
        label = new_name(label, "citation_label")
        found = await self.resolve(key, read_ddc(source, "source"))
        if found.owner != key:
            raise NotFound(f"there is no data set {found.name!r} of your own", name=found.name)
        now = micros(self._database.now())
        row = {
            "key_id": key, "label": label, "dataset_id": found.id, "columns": columns_.dumped(found.state.columns),
            "parts": dump_parts(found.state.parts), "created_at": now,
        }  # fmt: skip

        def cited(connection: Connection) -> int | None:
            if db.find_dataset(connection, key, label) is not None:
                return None
            return db.add_citation(connection, row)

        try:
            citation = await self._database.write(cited)
        except IntegrityError:
            citation = None
        if citation is None:
            raise Conflict(f"{label!r} is a citation, or a data set's own name, already", name=label)
        at = odd_datetime(moment(now))
        return {
            "id": citation, "short_form": label, "long_form": long_form(label, now), "dataset_name": found.name,
            "dataset_realname": _realname(found.state.folder), "transaction_time": at, "created_at": at,
        }  # fmt: skip

    async def uncite(self, key: str, label: str) -> None:
        """Delete a citation. Raises NotFound."""
        name = read_ddc(label, "citation_label").name
        if not await self._database.write(lambda connection: db.delete_citation(connection, key, name)):
            raise NotFound(f"there is no citation {name!r}", name=name)

    # -- records ----------------------------------------------------------------------------------------------------

    async def get(
        self, key: str, label: str, columns: Json, condition: Json, offset: int, limit: int | None, order: Json
    ) -> bytes:
        """The records under a citation as a JSON array of objects. Raises NotFound, InvalidParams, TooLarge."""
        found = await self._cited(key, label)
        state, by_name = found.state, found.state.by_name
        wanted = records_.wanted(columns, by_name)
        node = None if condition is None else read_condition(condition, by_name, "condition")
        by: DeclaredOrder = read_order(order, by_name)

        def read(tables: Tables) -> bytes:
            most = MOST_RECORDS if limit is None else limit
            if limit is None and (left := tables.count(state, node) - offset) > MOST_RECORDS:
                raise _too_many(left)
            return rows_as_json(tables.read(state, wanted, node, by, offset, most), by_name)

        if limit is not None and limit > MOST_RECORDS:
            raise InvalidParams.field("limit", f"is to be at most {MOST_RECORDS}", "less_than_equal")
        return await self._on_disk(read)

    async def _cited(self, key: str, label: str) -> Dataset:
        """What a citation cites; a data set's own name is a citation of itself."""
        ddc = read_ddc(label, "citation_label")
        try:
            return await self.resolve(key, ddc)
        except NotFound:
            found = await self._database.read(lambda connection: db.find_citation(connection, key, ddc.name))
            if found is None:
                raise NotFound(f"there is no citation and no data set {ddc.name!r}", name=ddc.name) from None
            return Dataset.of(found)

    async def put(self, key: str, name: str, records: Json, on_conflict: records_.OnConflict) -> int:
        """Put records, all or none; how many were registered or updated. Raises NotFound, InvalidParams, Conflict."""
        ddc = new_name(name, "dataset_name")

        def change(found: Dataset, tables: Tables) -> tuple[State, int]:
            rows = records_.read_records(found.state.columns, records)
            return records_.put(found.state, found.key_columns, tables, rows, on_conflict)

        return await self._change(key, ddc, change)

    async def delete_records(self, key: str, name: str, condition: Json) -> int:
        """Delete the records that match; how many those were. Raises NotFound, InvalidParams."""
        ddc = new_name(name, "dataset_name")

        def change(found: Dataset, tables: Tables) -> tuple[State, int]:
            node = read_condition(condition, found.state.by_name, "condition")
            parts, gone = tables.without(found.state, node)
            return State(found.state.folder, found.state.columns, parts), gone

        return await self._change(key, ddc, change)

    async def _change(self, key: str, name: str, change: Callable[[Dataset, Tables], tuple[State, int]]) -> int:
        """Bring the newest version of a data set of the key's own from one state to the next."""
        async with self.lock(key, name):
            for _ in range(ATTEMPTS):
                row = await self._database.read(lambda connection: db.find_state(connection, key, name, None))
                if row is None:
                    raise _unknown(name)
                found = Dataset.of(row)
                state, count = await self._on_disk(lambda tables, found=found: change(found, tables))  # type: ignore[misc]
                if state.parts == found.state.parts:
                    return count
                if await self._committed(found, state):
                    if found.state.keys - state.keys:
                        await self.tidy(found.id, found.state.folder)
                    return count
        raise Conflict(f"data set {name!r} is being changed by others at the same time; try again", name=name)

    async def _committed(self, found: Dataset, state: State) -> bool:
        assert found.version is not None
        (version, revision), parts = found.version, dump_parts(state.parts)
        return await self._database.write(lambda connection: db.change_version(connection, version, revision, parts))

    async def tidy(self, dataset: int, folder: str) -> None:
        """Delete parts that nothing names, and that nobody can be reading any more."""
        rows = await self._database.read(lambda connection: db.states_of(connection, dataset))
        states = [State(folder, columns_.loaded(row.columns), load_parts(row.parts)) for row in rows]
        named = set().union(*(state.keys for state in states))
        await self._on_disk(lambda tables: self._store.sweep(folder, named, KEPT))
        await self._renditions.forget(dataset, {state.digest for state in states})

    def lock(self, key: str, name: str) -> asyncio.Lock:
        """Held by who changes what a name names."""
        return self._locks.setdefault((key, name), asyncio.Lock())

    async def _on_disk(self, work: Callable[[Tables], T]) -> T:
        """Run work on tables in a thread, OSError as StorageUnavailable."""

        def run() -> T:
            from dataproc.catalogue.tables import Tables  # Arrow takes a fifth of a second to import

            return work(Tables(self._store))

        try:
            return await asyncio.to_thread(run)
        except OSError as error:
            raise StorageUnavailable("the storage of the catalogue did not answer as it should; try again") from error


# -------------------------------------------------------------------------------------------------------- what is told


def _info(row: Any) -> JsonObject:
    """The dataset_info of a row."""
    return {
        "id": row["id"],
        "session_id": row["session_id"],
        "usename": row["key_id"],
        "ddc_type": "table",
        "short_form": row["name"],
        "long_form": long_form(row["name"], row["created_at"]),
        "realname": _realname(row["folder"]),
        "created_at": odd_datetime(moment(row["created_at"])),
        "committed_at": None,
        "prepared_activity_id": None,
    }


def _realname(folder: str) -> str:
    return f"provenance.prov_{folder.rpartition('/')[2]}"


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no data set {name!r}", name=name)


def _too_many(rows: int) -> TooLarge:
    told = f"{rows} records match, and one answer holds {MOST_RECORDS}: use `limit` and `offset`, or a `condition`"
    return TooLarge(told, limit=MOST_RECORDS, size=rows)
