"""Where the catalogue's files lie: `datasets/<key>/<name>/…` and `models/<key>/<name>/…` under the storage's URL."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from dataproc.settings import Settings
from dataproc.storage.object_store.s3 import s3_options

CHUNK = 2**20


class Store:
    """Files by key on whatever fsspec opens. Blocking. A file is written once, under a name of its own.

    Raises OSError where the store fails.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        """options: of the fsspec filesystem."""
        fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **(options or {}))
        self.fs: Any = fs
        self.root: str = root.rstrip("/")
        self.local = isinstance(fs, LocalFileSystem)

    @classmethod
    def of(cls, settings: Settings) -> Store:
        """Where the settings keep the storage."""
        s3 = settings.storage_url.startswith(("s3://", "s3a://"))
        return cls(settings.storage_url, s3_options(settings) if s3 else None)

    def at(self, key: str) -> str:
        """The path of a key in the filesystem."""
        return f"{self.root}/{key}"

    def path(self, key: str) -> Path | None:
        """The file itself, where storage is local."""
        return Path(self.at(key)) if self.local else None

    def write(self, key: str) -> IO[bytes]:
        """A new file, to be written and closed."""
        if self.local:
            Path(self.at(key)).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened: IO[bytes] = self.fs.open(self.at(key), "wb")
        return opened

    def fetch(self, key: str, to: Path) -> None:
        """Copy a file to a local place."""
        with self.fs.open(self.at(key), "rb") as source, to.open("xb") as target:
            shutil.copyfileobj(source, target, CHUNK)

    def remove(self, *keys: str) -> None:
        """Delete files; those that are gone already are no error."""
        for key in keys:
            with suppress(FileNotFoundError):
                self.fs.rm_file(self.at(key))

    def sweep(self, folder: str, kept: set[str], older_than: float) -> None:
        """Delete what lies in a folder, is not in `kept`, and was written so many seconds ago."""
        self.fs.invalidate_cache()
        for found in self._list(folder):
            key = found["name"].removeprefix(self.root).lstrip("/")
            if key not in kept and found["type"] == "file" and _age(found) >= older_than:
                self.remove(key)

    def _list(self, folder: str) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self.fs.ls(self.at(folder), detail=True)
        except FileNotFoundError:
            return []
        return found


def _age(found: dict[str, Any]) -> float:
    """Seconds since a file was written; none where the store does not say."""
    written = found.get("mtime") or found.get("LastModified") or found.get("created")
    if isinstance(written, datetime):
        return (datetime.now(UTC) - written.astimezone(UTC)).total_seconds()
    return datetime.now(UTC).timestamp() - written if isinstance(written, int | float) else 0.0
