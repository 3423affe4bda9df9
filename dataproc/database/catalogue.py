"""What is asked of, and done to, the catalogue's tables: functions of a connection, for the database's threads."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, or_, select, update

from dataproc.database.tables import catalogue_shares, dataset_citations, dataset_versions, datasets, models

DATASET, MODEL_STORE = "dataset", "model_store"


class Found(NamedTuple):
    """A data set's row, and the row of the state that was asked for: a version, or a citation's."""

    dataset: Row[Any]
    state: Row[Any]


def find_dataset(connection: Connection, key: str, name: str) -> Row[Any] | None:
    """A key's own data set."""
    return connection.execute(select(datasets).where(datasets.c.key_id == key, datasets.c.name == name)).one_or_none()


def find_state(connection: Connection, owner: str, name: str, version: int | None) -> Found | None:
    """A data set with its newest version, or the one of that moment."""
    found = find_dataset(connection, owner, name)
    if found is None:
        return None
    versions = select(dataset_versions).where(dataset_versions.c.dataset_id == found.id)
    if version is not None:
        versions = versions.where(dataset_versions.c.created_at == version)
    newest = versions.order_by(dataset_versions.c.created_at.desc(), dataset_versions.c.id.desc()).limit(1)
    state = connection.execute(newest).one_or_none()
    return None if state is None else Found(found, state)


def find_citation(connection: Connection, owner: str, label: str) -> Found | None:
    """What a key's citation cites."""
    cited = select(dataset_citations).where(dataset_citations.c.key_id == owner, dataset_citations.c.label == label)
    state = connection.execute(cited).one_or_none()
    if state is None:
        return None
    return Found(connection.execute(select(datasets).where(datasets.c.id == state.dataset_id)).one(), state)


def owner_of(connection: Connection, kind: str, key: str, name: str) -> str | None:
    """Who shares a name with a key."""
    shares = catalogue_shares.c
    asked = select(shares.owner_id).where(shares.kind == kind, shares.name == name, shares.key_id == key)
    return connection.execute(asked).scalar_one_or_none()


def list_datasets(connection: Connection, key: str) -> list[Row[Any]]:
    """A key's own data sets and those that are shared with it, by name."""
    shares = catalogue_shares.c
    shared = and_(shares.kind == DATASET, shares.name == datasets.c.name, shares.owner_id == datasets.c.key_id)
    mine = or_(
        datasets.c.key_id == key, select(shares.name).where(shared, shares.key_id == key).correlate(datasets).exists()
    )
    return list(connection.execute(select(datasets).where(mine).order_by(datasets.c.name, datasets.c.id)))


def add_dataset(connection: Connection, row: dict[str, Any]) -> int:
    """A new row; its id."""
    return int(connection.execute(insert(datasets).values(row)).inserted_primary_key[0])  # type: ignore[index]


def add_version(connection: Connection, row: dict[str, Any]) -> int:
    """A new version, a microsecond after the newest if the clock does not move; its moment."""
    newest = select(func.max(dataset_versions.c.created_at)).where(dataset_versions.c.dataset_id == row["dataset_id"])
    before = connection.execute(newest).scalar_one_or_none()
    moment = row["created_at"] if before is None else max(row["created_at"], before + 1)
    connection.execute(insert(dataset_versions).values({**row, "created_at": moment}))
    return int(moment)


def change_version(connection: Connection, version: int, revision: int, parts: str) -> bool:
    """Give a version other parts, if it is still as it was seen."""
    seen = update(dataset_versions).where(dataset_versions.c.id == version, dataset_versions.c.revision == revision)
    return connection.execute(seen.values(parts=parts, revision=revision + 1)).rowcount == 1


def delete_dataset(connection: Connection, dataset: int) -> bool:
    """Delete a data set with its versions and citations."""
    for table in (dataset_citations, dataset_versions):
        connection.execute(delete(table).where(table.c.dataset_id == dataset))
    return connection.execute(delete(datasets).where(datasets.c.id == dataset)).rowcount == 1


def states_of(connection: Connection, dataset: int) -> list[Row[Any]]:
    """Columns and parts of every version and citation of a data set."""
    found: list[Row[Any]] = []
    for table in (dataset_versions, dataset_citations):
        found += connection.execute(select(table.c.columns, table.c.parts).where(table.c.dataset_id == dataset))
    return found


def add_citation(connection: Connection, row: dict[str, Any]) -> int:
    """A new row; its id."""
    return int(connection.execute(insert(dataset_citations).values(row)).inserted_primary_key[0])  # type: ignore[index]


def delete_citation(connection: Connection, key: str, label: str) -> bool:
    """Delete a key's citation."""
    cited = delete(dataset_citations).where(dataset_citations.c.key_id == key, dataset_citations.c.label == label)
    return connection.execute(cited).rowcount == 1


def has_store(connection: Connection, owner: str, store: str) -> bool:
    """Whether a key has a model store of that name: one that a model was ever put to."""
    asked = select(models.c.id).where(models.c.key_id == owner, models.c.store == store).limit(1)
    return connection.execute(asked).one_or_none() is not None


def find_models(
    connection: Connection,
    owner: str,
    store: str,
    condition: ColumnElement[bool] | None,
    order: list[ColumnElement[Any]],
    offset: int,
    limit: int,
) -> list[Row[Any]]:
    """Models of a store, in that order and then as they came."""
    asked = select(models).where(models.c.key_id == owner, models.c.store == store)
    if condition is not None:
        asked = asked.where(condition)
    return list(connection.execute(asked.order_by(*order, models.c.id).offset(offset).limit(limit)))


def add_models(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """New rows."""
    if rows:
        connection.execute(insert(models), rows)


def share(connection: Connection, kind: str, name: str, key: str, owner: str) -> bool:
    """Share a name with a key; False where another owner's of that name is shared with it already."""
    known = owner_of(connection, kind, key, name)
    if known is None:
        row = {"kind": kind, "name": name, "key_id": key, "owner_id": owner}
        connection.execute(insert(catalogue_shares).values(row))
    return known in (None, owner)


def unshare(connection: Connection, kind: str, name: str, key: str, owner: str) -> bool:
    """Take a share back."""
    shares = catalogue_shares.c
    gone = delete(catalogue_shares).where(
        shares.kind == kind, shares.name == name, shares.key_id == key, shares.owner_id == owner
    )
    return connection.execute(gone).rowcount == 1
