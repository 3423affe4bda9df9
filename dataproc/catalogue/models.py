"""Model stores: files with a description, put once and never changed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from sqlalchemy import Connection, Row

from dataproc.catalogue.columns import Column, odd_datetime
from dataproc.catalogue.conditions import read_condition, sql
from dataproc.catalogue.names import new_name, read_ddc
from dataproc.catalogue.reading import read_order
from dataproc.catalogue.store import CHUNK, Store
from dataproc.database import Database
from dataproc.database import catalogue as db
from dataproc.database.tables import micros, models, moment
from dataproc.errors import InvalidParams, NotFound, StorageUnavailable
from dataproc.types import Json, JsonObject

STATE_PUT = 10
MOST_MODELS = 1000  # of one answer
MOST_META = 2**20  # bytes
_COLUMNS = {
    column.name: column
    for column in (
        *(Column(name, "integer", "integer") for name in ("model_state", "model_size", "round", "hop_count")),
        *(
            Column(name, "text", "text")
            for name in ("model_id", "model_kind", "model_description", "model_hash", "tenant_id")
        ),
        *(Column(name, "timestamp with time zone", "timestamptz") for name in ("start_datetime", "end_datetime")),
    )
}


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model that is in the store already, and becomes known when its row is written."""

    row: dict[str, Any]

    @property
    def info(self) -> JsonObject:
        """Its model_info."""
        return _info(self.row)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was found. key: of its file in the store."""

    id: str
    key: str
    info: JsonObject


class Models:
    """The model stores of all keys. A store is there from the first model on."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database, self._store = database, store
        columns: dict[str, Any] = {name: models.c[name] for name in _COLUMNS if name != "tenant_id"}
        self._sql = {**columns, "tenant_id": models.c.key_id}

    async def find(
        self, key: str, store: Json, conds: Json, offset: int, limit: int, order: Json, *where: str | int,
        said: str = "conds",
    ) -> list[Model]:  # fmt: skip
        """Models of a store that the key may read: its own, else one that is shared with it. Raises NotFound."""
        name = read_ddc(store, *where, "model_store_ddc").name
        node = None if conds is None else read_condition(conds, _COLUMNS, *where, said)
        condition = None if node is None else sql(node, self._sql)
        by = [self._sql[column].desc() if down else self._sql[column] for column, down in read_order(order, _COLUMNS)]

        def find(connection: Connection) -> Sequence[Row[Any]] | None:
            owner: str | None = key
            if not db.has_store(connection, key, name):
                owner = db.owner_of(connection, db.MODEL_STORE, key, name)
            if owner is None or not db.has_store(connection, owner, name):
                return None
            return db.find_models(connection, owner, name, condition, by, offset, limit)

        rows = await self._database.read(find)
        if rows is None:
            raise NotFound(f"there is no model store {name!r}", name=name)
        return [Model(row.model_id, _place(row._mapping), _info(row._mapping)) for row in rows]

    async def put(self, key: str, told: JsonObject, file: IO[bytes]) -> JsonObject:
        """Put a model; its model_info. told: the data part of an upload. Raises InvalidParams, StorageUnavailable."""
        made = await self.prepare(key, told, file)
        await self._database.write(lambda connection: db.add_models(connection, [made.row]))
        return made.info

    async def prepare(self, key: str, told: JsonObject, file: IO[bytes], run: str | None = None) -> NewModel:
        """Bring a model's file to the store. It becomes known when the row of what is returned is written."""
        store, described = new_name(told.get("model_store_ddc"), "model_store_ddc"), _described(told)
        now = micros(self._database.now())
        row = {
            "model_id": str(uuid.uuid4()), "key_id": key, "store": store, **described, "model_state": STATE_PUT,
            "round": 0, "hop_count": 0, "start_datetime": now, "end_datetime": now, "run_id": run,
        }  # fmt: skip
        try:
            digest, size = await asyncio.to_thread(self._copy, file, _place(row))
        except OSError as error:
            raise StorageUnavailable("the storage of the catalogue did not answer as it should; try again") from error
        return NewModel({**row, "model_hash": digest, "model_size": size})

    def _copy(self, file: IO[bytes], place: str) -> tuple[str, int]:
        digest, size = hashlib.md5(usedforsecurity=False), 0  # the hash that the reference has
        with self._store.write(place) as into:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                size += into.write(chunk)
        return digest.hexdigest(), size


def _described(told: JsonObject) -> dict[str, str]:
    known = {"model_store_ddc", "model_kind", "model_description", "model_meta"}
    if unknown := set(told) - known:
        name = min(unknown)
        raise InvalidParams.field(name, f"is none of {', '.join(sorted(known))}", "extra_forbidden")
    found = {}
    for name in ("model_kind", "model_description"):
        value = told.get(name, "")
        if not isinstance(value, str):
            raise InvalidParams.field(name, "is to be a string", "string_type")
        found[name] = value
    meta = told.get("model_meta", {})
    if not isinstance(meta, dict):
        raise InvalidParams.field("model_meta", "is to be an object", "dict_type")
    found["model_meta"] = json.dumps(meta)
    if len(found["model_meta"]) > MOST_META:
        raise InvalidParams.field("model_meta", f"is larger than {MOST_META} bytes", "too_long")
    return found


def _place(row: Any) -> str:
    return f"models/{row['key_id']}/{row['store']}/{row['model_id']}/model"


def _info(row: Any) -> JsonObject:
    """The model_info of a row."""
    return {
        "start_datetime": odd_datetime(moment(row["start_datetime"])),
        "end_datetime": odd_datetime(moment(row["end_datetime"])),
        "location": [0.0, 0.0],
        "tenant_id": row["key_id"],
        "model_id": row["model_id"],
        "model_kind": row["model_kind"],
        "model_description": row["model_description"],
        "model_meta": json.loads(row["model_meta"]),
        "model_state": row["model_state"],
        "model_hash": row["model_hash"],
        "model_size": row["model_size"],
        "round": row["round"],
        "hop_count": row["hop_count"],
    }
