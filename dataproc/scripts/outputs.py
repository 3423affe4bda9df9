"""What a script left in `output/`: opened without following a link, and brought to the catalogue, all or nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from dataproc.catalogue.names import new_name
from dataproc.catalogue.results import NewFile, NewTable
from dataproc.errors import DataprocError, ExecFailed
from dataproc.scripts.binding import Entries, columns_of
from dataproc.storage.paths import open_regular, opened_beneath, opened_folder

MOST_FILES = 10_000
DEEPEST = 20
_MODEL = ("model_store_ddc", "model_kind", "model_description", "model_meta")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(slots=True)
class Found:
    """Files to be kept, open, and what the caller should be told about the rest."""

    tables: list[NewTable] = field(default_factory=list)
    files: list[NewFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def refused(name: str, file: str, why: str) -> ExecFailed:
    """The error of a run whose output cannot be kept."""
    said = f"output {name!r}: {file}: {why}; nothing of the run was kept" if file else f"output {name!r}: {why}"
    return ExecFailed(said, type="OutputRefused", message=said)


def find_outputs(top: Path, entries: Entries, owner: int | None, stack: ExitStack) -> Found:
    """What lies in the tree's `output/`. The files stay open for as long as the stack. Raises ExecFailed, OSError."""
    found = Found()
    with opened_folder(top) as root:
        try:
            output = stack.enter_context(
                opened_beneath(root, ("output",), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            )
        except OSError:
            found.notes.append("the script left no output directory")
            return found
        there = set(os.listdir(output))
        for name, entry in entries.items():
            files = _found(output, name) if name in there else []
            if not files:
                found.notes.append(f"output {name!r} left nothing to keep")
            if "path" in entry and "data_ddc" not in entry and "model_store_ddc" not in entry:
                continue  # moved to the session before the run ended
            for number, names in enumerate(files):
                if number >= MOST_FILES:
                    raise refused(name, "", f"holds more than {MOST_FILES} files")
                _take(found, output, name, names, entry, owner, stack)
        for other in sorted(there - set(entries))[:10]:
            found.notes.append(f"output/{other[:100]} is no output of the definition, and was not kept")
    return found


def _found(output: int, name: str) -> list[tuple[str, ...]]:
    """The files of one output: all below its folder, or itself where the script left a file of that name."""
    try:
        mode = os.stat(name, dir_fd=output, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            return [(name,)]
        return list(_files(output, (name,), 0))
    except OSError:
        raise refused(name, "", "changes, or is closed by its mode") from None


def _files(root: int, names: tuple[str, ...], depth: int) -> Iterator[tuple[str, ...]]:
    """Every name below that is no folder, in order."""
    with opened_beneath(root, names, _FOLDER) as folder:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        kinds = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in kinds:
        if is_folder and depth < DEEPEST:
            yield from _files(root, (*names, name), depth + 1)
        elif not is_folder:
            yield (*names, name)


def _take(
    found: Found, output: int, name: str, names: tuple[str, ...], entry: dict[str, Any], owner: int | None,
    stack: ExitStack,
) -> None:  # fmt: skip
    shown = "/".join(names[1:]) or name
    data, store = entry.get("data_ddc"), entry.get("model_store_ddc")
    if data is None and store is None:
        found.notes.append(f"output {name!r} names neither a data set nor a model store: {shown} was not kept")
        return
    file = _opened(output, name, names, owner, stack)
    if data is not None and (shown.lower().endswith(".csv") or store is None):
        if not shown.lower().endswith(".csv"):
            raise refused(name, shown, "is no .csv file, and the output names no `model_store_ddc`")
        found.tables.append(NewTable(new_name(data), file, columns_of(name, entry)))
    else:
        told = {key: entry[key] for key in _MODEL if key in entry}
        found.files.append(NewFile(told, file))


def _opened(output: int, name: str, names: tuple[str, ...], owner: int | None, stack: ExitStack) -> IO[bytes]:
    try:
        if stat.S_ISLNK(_lstat(output, names).st_mode):
            raise refused(name, "/".join(names[1:]) or name, "is a link")
        return stack.enter_context(os.fdopen(open_regular(output, names, owner), "rb"))
    except (OSError, DataprocError) as error:
        if isinstance(error, ExecFailed):
            raise
        raise refused(name, "/".join(names[1:]) or name, "is no regular file that can be read") from None


def _lstat(output: int, names: tuple[str, ...]) -> os.stat_result:
    with opened_beneath(output, names[:-1]) as folder:
        return os.stat(names[-1], dir_fd=folder, follow_symlinks=False)
