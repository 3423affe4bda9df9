"""A generation's own copy of a module's folder: made whole, named by its content, then never written again."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dataproc.module import Generation, ModuleBroken
from dataproc.module.load import find_source
from dataproc.registry.definition import find_definition

MAX_BYTES = 512 * 2**20
MAX_FILES = 20_000
MAX_DEPTH = 40
CHUNK = 2**20
SKIPPED = frozenset({"__pycache__", "node_modules"})

Signature = tuple[tuple[str, int, int, int, int], ...]


class StillChanging(Exception):  # a state, not a fault
    """The folder was written to while it was copied; a later look will do."""


@dataclass(frozen=True, slots=True)
class Copies:
    """The copies below `root`, one folder a module and in it one a generation."""

    root: Path

    def take(self, module: str, folder: Path) -> Generation:
        """The generation of what the folder holds now. ModuleBroken for no module; StillChanging; OSError."""
        before = signature(folder)
        definition = find_definition(folder)
        if definition is None and find_source(folder, module) is None:
            raise ModuleBroken(
                "the folder holds neither module.py, nor one package, nor src/definitions/definition.json"
            )
        incoming = self.root / ".incoming" / uuid.uuid4().hex
        try:
            digest = _copy(folder, incoming)
            if signature(folder) != before:
                raise StillChanging(module)
            place = str(self._settle(incoming, module, digest))
            return Generation(module, digest, "script" if definition else "folder", place, source=folder)
        finally:
            discard(incoming)

    def drop(self, generation: Generation) -> None:
        """Delete a copy that nobody uses any more."""
        if generation.kind != "entry_point":
            discard(Path(generation.location))

    def hold(self) -> IO[bytes]:
        """A shared lock on the folder while the file is open. Who holds it alone first deletes what others left."""
        self.root.mkdir(parents=True, exist_ok=True)
        file = (self.root / ".held").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            self._sweep()
        fcntl.flock(file, fcntl.LOCK_SH)
        return file

    def _sweep(self) -> None:
        for copy in [*self.root.glob(".incoming/*"), *self.root.glob("[!.]*/*")]:
            discard(copy)

    def _settle(self, incoming: Path, module: str, digest: str) -> Path:
        """Rename the copy to a place of its own: code that comes back after a change does not share its first copy."""
        place = self.root / module / f"{digest[:16]}-{incoming.name[:8]}"
        place.parent.mkdir(parents=True, exist_ok=True)
        incoming.rename(place)
        place.chmod(0o555)
        return place


def signature(folder: Path) -> Signature:
    """What changes when a file of the folder does, at the cost of one `stat` a file."""
    return tuple(
        (name, found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode) for name, _, found in _files(folder)
    )


def discard(place: Path) -> None:
    """Delete a copy, read-only as it is. What is not there is fine."""
    if not place.exists():
        return
    doomed = place.parent / f".{uuid.uuid4().hex}"  # nobody finds half a copy under a generation's name
    place.chmod(0o755)
    place.rename(doomed)
    for folder, _, _ in os.walk(doomed):
        os.chmod(folder, 0o755)  # noqa: S103 - it is about to go
    shutil.rmtree(doomed, ignore_errors=True)


def _copy(folder: Path, target: Path) -> str:
    """Copy the folder's files, read-only, and give the digest of what was written."""
    target.mkdir(parents=True)
    digest, size, folders = hashlib.sha256(), 0, [target]
    for count, (name, source, found) in enumerate(_files(folder), 1):
        size += found.st_size
        if size > MAX_BYTES or count > MAX_FILES:
            raise ModuleBroken(f"a module's folder holds at most {MAX_FILES} files and {MAX_BYTES >> 20} MiB")
        copy = target / name
        if not copy.parent.exists():
            copy.parent.mkdir(parents=True)
            folders.extend(parent for parent in copy.parents if target in parent.parents)
        runs = bool(found.st_mode & stat.S_IXUSR)
        digest.update(f"{name}\0{int(runs)}\0".encode("utf-8", "surrogateescape"))
        digest.update(_copy_file(source, copy))
        copy.chmod(0o555 if runs else 0o444)
    for made in set(folders) - {target}:  # the top stays writable until it is renamed
        made.chmod(0o555)
    return digest.hexdigest()


def _copy_file(source: str, copy: Path) -> bytes:
    digest = hashlib.sha256()
    with open(source, "rb") as reader, copy.open("xb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
    return digest.digest()


def _files(folder: Path) -> Iterator[tuple[str, str, os.stat_result]]:
    """Name inside the folder, path and stat of each regular file, in a fixed order; links are followed.

    Left out: names that start with a dot (`.git`, `.venv`), and what Python and other tools make by themselves.
    """

    def walk(place: str, prefix: str, above: frozenset[str]) -> Iterator[tuple[str, str, os.stat_result]]:
        real = os.path.realpath(place)
        if real in above or len(above) > MAX_DEPTH:  # a link to a folder above itself
            return
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name in SKIPPED or entry.name.endswith(".pyc"):
                continue
            try:
                found = entry.stat()
            except OSError:  # a link to nowhere, or a file that just went
                continue
            if stat.S_ISDIR(found.st_mode):
                yield from walk(entry.path, f"{prefix}{entry.name}/", above | {real})
            elif stat.S_ISREG(found.st_mode):
                yield f"{prefix}{entry.name}", entry.path, found

    yield from walk(str(folder), "", frozenset())
