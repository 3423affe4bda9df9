"""Sharing: an administrator lets other keys read a data set, or a model store, by its name."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from dataproc.catalogue.names import new_name
from dataproc.database import Database
from dataproc.database import catalogue as db
from dataproc.errors import Conflict, InvalidParams, NotFound

Kind = Literal["dataset", "model_store"]


class Shares:
    """Who may read what is another's. A name of one's own hides one that is shared."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def share(self, kind: Kind, owner: str, name: str, key: str) -> None:
        """Let a key read it. Raises NotFound for what the owner has not, Conflict where the key reads another's of
        that name.
        """
        name = new_name(name, "name")
        if key == owner:
            raise InvalidParams.field("key", "is the owner")

        def share(connection: Connection) -> bool | None:
            there = (
                db.find_dataset(connection, owner, name) is not None
                if kind == "dataset"
                else db.has_store(connection, owner, name)
            )
            return db.share(connection, kind, name, key, owner) if there else None

        try:
            shared = await self._database.write(share)
        except IntegrityError:  # another server shared one of that name with the key in the same moment
            shared = await self._database.write(share)
        if shared is None:
            raise NotFound(f"that owner has no {kind.replace('_', ' ')} {name!r}", name=name)
        if not shared:
            raise Conflict(f"another owner's {name!r} is shared with that key already", name=name)

    async def unshare(self, kind: Kind, owner: str, name: str, key: str) -> None:
        """Take it back. Raises NotFound."""
        name = new_name(name, "name")
        if not await self._database.write(lambda connection: db.unshare(connection, kind, name, key, owner)):
            raise NotFound(f"{name!r} is not shared with that key", name=name)
