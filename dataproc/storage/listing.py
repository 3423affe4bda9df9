"""What a directory holds, page by page."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import translate

from dataproc.errors import InvalidParams
from dataproc.storage.files import Entry, Files
from dataproc.storage.paths import OWN_PREFIX, RelPath, opened_beneath, opened_folder

MAX_LIMIT = 10_000
_MAX_GLOB = 256
_READ = os.O_RDONLY | os.O_DIRECTORY
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries of a listing are asked for.

    glob: matched with the name, or, if it has a `/` in it, with the path from the listed directory (`**` is any
    number of directories; it implies `recursive`). cursor: from the page before. limit: entries of a page.
    """

    recursive: bool = False
    glob: str | None = None
    limit: int = MAX_LIMIT
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """One page, sorted by names; `cursor` asks for the next one, None at the end."""

    path: str
    entries: list[Entry]
    cursor: str | None


def list_folder(files: Files, path: RelPath, selection: Selection) -> Listing:
    """One page of a directory. `.dataproc/` is left out of its parent. Raises OSError, InvalidParams."""
    after = _read_cursor(selection.cursor)
    pattern = Pattern(selection.glob) if selection.glob else None
    deep = selection.recursive or (pattern is not None and pattern.deep)
    found: list[Entry] = []
    with opened_folder(files.tree.files) as root:
        for names in _walk(root, path.names, after, deep):
            if pattern is not None and not pattern.matches(names):
                continue
            if len(found) == selection.limit:
                return Listing(str(path), found, _cursor(after))
            if (entry := _entry(root, path.names + names)) is not None:
                found.append(entry)
                after = names
    return Listing(str(path), found, None)


def _walk(root: int, top: Names, after: Names, deep: bool) -> Iterator[Names]:
    """The names below `top`, relative to it, in order, those behind `after`; a folder before what is in it."""
    pending = [iter(_children(root, top, (), after))]
    while pending:
        step = next(pending[-1], None)
        if step is None:
            pending.pop()
            continue
        names, folder = step
        if names > after:
            yield names
        if deep and folder:
            with suppress(OSError):  # removed, or closed by its mode
                pending.append(iter(_children(root, top, names, after)))


def _children(root: int, top: Names, below: Names, after: Names) -> list[tuple[Names, bool]]:
    least = after[: len(below) + 1]
    with opened_beneath(root, top + below, _READ) as folder, os.scandir(folder) as entries:
        found = [((*below, entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    return sorted(each for each in found if each[0] >= least and top + each[0] != (OWN_PREFIX,))


def _entry(root: int, names: Names) -> Entry | None:
    """What lies there, a link to a regular file inside as that file; None if it is gone, or no client can name it."""
    path = "/".join(names)
    try:
        path.encode()
        with opened_beneath(root, names, os.O_PATH | os.O_NOFOLLOW) as fd:
            entry = Entry.of(path, os.fstat(fd))
        if entry.type != "link":
            return entry
    except (OSError, UnicodeEncodeError):
        return None
    with suppress(OSError), opened_beneath(root, names, os.O_PATH) as fd:
        if (target := Entry.of(path, os.fstat(fd))).type == "file":
            return target
    return entry


class Pattern:
    """A glob. Each name is matched by itself, so that no pattern takes more than linear time over a path."""

    def __init__(self, glob: str) -> None:
        if len(glob) > _MAX_GLOB:
            raise InvalidParams.field("glob", f"is longer than {_MAX_GLOB} characters")
        self.deep = "/" in glob or glob == "**"
        self._parts = [None if part == "**" else re.compile(translate(part)) for part in glob.split("/")]

    def matches(self, names: Names) -> bool:
        """Whether the path `names`, from the listed directory, is asked for."""
        if not self.deep:
            return self._at(0, names[-1])
        places = self._open({0})
        for name in names:
            stays = {at for at in places if at < len(self._parts) and self._parts[at] is None}
            moves = {at + 1 for at in places - stays if at < len(self._parts) and self._at(at, name)}
            places = self._open(stays | moves)
        return len(self._parts) in places

    def _at(self, at: int, name: str) -> bool:
        part = self._parts[at]
        return part is not None and part.match(name) is not None

    def _open(self, places: set[int]) -> set[int]:
        """With those reached by letting `**` stand for nothing."""
        for at, part in enumerate(self._parts):
            if part is None and at in places:
                places = places | {at + 1}
        return places


def _cursor(after: Names) -> str:
    return base64.urlsafe_b64encode(json.dumps(after).encode()).decode()


def _read_cursor(cursor: str | None) -> Names:
    if cursor is None:
        return ()
    try:
        after = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except ValueError:
        after = None
    if not isinstance(after, list) or not after or not all(isinstance(name, str) for name in after):
        raise InvalidParams.field("cursor", "is none that a listing answered")
    return tuple(after)
