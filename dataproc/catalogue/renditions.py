"""What modules are handed: a state of a data set as CSV, a model as a file. Each is made once, and kept."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from dataproc.catalogue.store import Store
from dataproc.errors import StorageUnavailable

if TYPE_CHECKING:
    from dataproc.catalogue.datasets import Dataset
    from dataproc.catalogue.models import Model

READABLE = 0o444  # by the workers' uid too; nobody else gets to the folder


class Renditions:
    """Files of this machine, below `root`. Nobody writes to one after it was made: it may be linked, not copied."""

    def __init__(self, root: Path, store: Store) -> None:
        self._root, self._store = root, store
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def csv(self, dataset: Dataset) -> Path:
        """`<name>.csv`: UTF-8, with a header line. Raises StorageUnavailable."""
        folder = self._root / "tables" / str(dataset.id)
        file = folder / dataset.state.digest / f"{dataset.name}.csv"
        async with self._making.setdefault(str(file), asyncio.Lock()):
            if not file.exists():
                await self._on_disk(file, lambda part: _write_csv(self._store, dataset, part))
        return file

    async def model(self, model: Model) -> Path:
        """The model's file. Raises StorageUnavailable."""
        stored = self._store.path(model.key)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stored is not None and os.stat(stored.parent).st_dev == os.stat(self._root).st_dev:
            if os.stat(stored).st_mode & 0o777 != READABLE:
                stored.chmod(READABLE)
            return stored
        file = self._root / "models" / model.id
        async with self._making.setdefault(model.id, asyncio.Lock()):
            if not file.exists():
                await self._on_disk(file, lambda part: self._store.fetch(model.key, part))
        return file

    async def forget(self, dataset: int, kept: set[str]) -> None:
        """Delete the renditions of a data set but those of these states."""
        folder = self._root / "tables" / str(dataset)
        names = set(os.listdir(folder)) - kept if folder.is_dir() else set()
        for name in names:
            await asyncio.to_thread(shutil.rmtree, folder / name, ignore_errors=True)

    async def _on_disk(self, file: Path, write: object) -> None:
        def make() -> None:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = file.with_name(f".{uuid.uuid4().hex}")
            try:
                write(part)  # type: ignore[operator]
                part.chmod(READABLE)
                part.rename(file)
            finally:
                part.unlink(missing_ok=True)

        try:
            await asyncio.to_thread(make)
        except OSError as error:
            raise StorageUnavailable("the storage of the catalogue did not answer as it should; try again") from error


def _write_csv(store: Store, dataset: Dataset, part: Path) -> None:
    from dataproc.catalogue.tables import Tables

    Tables(store).write_csv(dataset.state, part)
