"""One application folder, here and in the store: what differs, and the steps that bring them together."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from dataproc.storage.backend import on_disk
from dataproc.storage.folders import Tree
from dataproc.storage.object_store.fetching import fetch_all
from dataproc.storage.object_store.index import Index, KeptFile, KeptFolder, Signature, scan, signature
from dataproc.storage.object_store.objects import Objects
from dataproc.storage.paths import make_parents, opened_beneath, opened_folder

_LONGEST = 700  # bytes of a path


@dataclass(eq=False)
class Application:
    """A folder that is here. seen, versions: each file as it was when it was fetched or kept, here and in the store."""

    folder: Path
    looked: float
    seen: dict[str, Signature] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def tree(self) -> Tree:
        """As a session's: paths begin with the module."""
        return Tree(self.folder, self.folder, self.folder)

    @property
    def prefix(self) -> str:
        """What keys begin with before the path."""
        return f"applications/{self.folder.parent.name}/"


@dataclass(frozen=True, slots=True)
class Staged:
    """What others have changed: files that lie beside the folder, by path, and paths of those that are gone.

    before: the store's word for each file that was known when it was asked.
    """

    place: Path
    files: dict[str, Path]
    versions: dict[str, str]
    gone: set[str]
    before: dict[str, str]


def index_of(listed: dict[str, tuple[int, str]], cut: int) -> Index:
    """What the listed objects are as files of a folder; of a file and a folder of one name it is the folder."""
    index, now = Index(), time.time_ns()
    paths = {key[cut:]: (key, size) for key, (size, _) in sorted(listed.items())}
    plain = [path for path in paths if not {"", ".", ".."} & set(path.split("/"))]
    for path in plain:
        names = path.split("/")
        for depth in range(2, len(names)):
            index.entries.setdefault("/".join(names[:depth]), KeptFolder(0o700))
    for path in plain:
        key, size = paths[path]
        index.entries.setdefault(path, KeptFile(key, size, 0o600, now))
    return index


def survey(application: Application) -> tuple[dict[tuple[str, ...], int], set[str]]:
    """The files that have to be put, with their sizes, and the paths of those that are gone. Raises OSError."""
    changed, there = dict[tuple[str, ...], int](), set()
    with opened_folder(application.folder.parent) as top:
        for names, found, _ in scan(top, (application.folder.name,)):
            path = "/".join(names)
            if stat.S_ISREG(found.st_mode) and path.isprintable() and len(os.fsencode(path)) < _LONGEST:
                there.add(path)
                if application.seen.get(path) != signature(found):
                    changed[names] = found.st_size
    return changed, application.seen.keys() - there


async def staged(
    application: Application, before: dict[str, str], listed: dict[str, tuple[int, str]], objects: Objects,
    owner: int | None,
) -> Staged | None:  # fmt: skip
    """Fetch what others have changed to a place beside the folder; None where it is nothing.

    Raises StorageUnavailable.
    """
    cut = len(application.prefix)
    files = {path: kept for path, kept in index_of(listed, cut).entries.items() if isinstance(kept, KeptFile)}
    versions = {path: listed[kept.key][1] for path, kept in files.items()}
    changed = [path for path, version in versions.items() if before.get(path) != version]
    gone = before.keys() - versions.keys()
    if not changed and not gone:
        return None
    place = application.folder.parent / f".{uuid.uuid4().hex}"
    index = Index("", {f"in/{number}": replace(files[path], mode=0o600) for number, path in enumerate(changed)})
    index.entries["in"] = KeptFolder(0o700)
    try:
        await on_disk(os.mkdir, place, 0o700)
        await fetch_all(objects, Tree(place / "in", place / "in", place / "in"), index, owner)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    at = {path: place / "in" / str(number) for number, path in enumerate(changed)}
    return Staged(place, at, versions, gone, before)


def take_over(application: Application, staged: Staged, owner: int | None) -> None:
    """Rename what is staged into the folder, but never over what was changed here since it was put or fetched."""
    try:
        with opened_folder(application.folder.parent) as top:
            for path, file in staged.files.items():
                if _untouched(application, staged, top, path):
                    _replace(application, top, path, file, owner)
                    application.versions[path] = staged.versions[path]
            for path in staged.gone:
                if _untouched(application, staged, top, path) and application.seen.pop(path, None) is not None:
                    application.versions.pop(path, None)
                    *above, name = path.split("/")
                    with opened_beneath(top, above) as parent:
                        os.unlink(name, dir_fd=parent)
    finally:
        shutil.rmtree(staged.place, ignore_errors=True)


def _untouched(application: Application, staged: Staged, top: int, path: str) -> bool:
    if application.versions.get(path) != staged.before.get(path):
        return False  # put meanwhile
    here: Signature | None = None
    *above, name = path.split("/")
    with suppress(FileNotFoundError, NotADirectoryError), opened_beneath(top, above) as parent:
        here = signature(os.stat(name, dir_fd=parent, follow_symlinks=False))
    return here == application.seen.get(path)


def _replace(application: Application, top: int, path: str, file: Path, owner: int | None) -> None:
    *above, name = path.split("/")
    try:
        parent = make_parents(top, above, owner)
    except (NotADirectoryError, FileExistsError):
        return  # a file lies here where others have a folder
    try:
        with suppress(FileNotFoundError):
            os.chmod(file, stat.S_IMODE(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode))
        os.rename(file, name, dst_dir_fd=parent)
        application.seen[path] = signature(os.stat(name, dir_fd=parent, follow_symlinks=False))
    finally:
        os.close(parent)
