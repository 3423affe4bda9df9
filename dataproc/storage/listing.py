"""What a directory holds, page by page."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from fnmatch import translate
from heapq import nsmallest

from dataproc.errors import InvalidParams
from dataproc.storage.files import Entry, Files, behind
from dataproc.storage.paths import FOLDER, OWN_PREFIX, RelPath, open_beneath, opened_beneath, opened_folder

MAX_LIMIT = 10_000
PAGE = 1_000  # entries, where the caller does not say
MANY_PAGES = 16  # in a directory with more, a page is looked for; in others all names are sorted
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
    limit: int = PAGE
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
    with opened_folder(files.tree.files) as root, closing(_Lookup(root, path.names)) as lookup:
        page = selection.limit + 1 if pattern is None else 0
        for names in _walk(root, path.names, after, deep, page):
            if pattern is not None and not pattern.matches(names):
                continue
            if len(found) == selection.limit:
                return Listing(str(path), found, _cursor(after))
            if (entry := lookup.entry(names)) is not None:
                found.append(entry)
                after = names
    return Listing(str(path), found, None)


def _walk(root: int, top: Names, after: Names, deep: bool, page: int) -> Iterator[Names]:
    """The names below `top`, relative to it, in order, those behind `after`; a folder before what is in it.

    page: so many will do, most likely; 0 where nobody knows.
    """
    if not deep:
        found = _names(root, top)
        if after:
            found = [name for name in found if name > after[0]]
        yield from ((name,) for name in _in_order(found, page))
        return
    pending = [iter(_children(root, top, (), after))]
    while pending:
        step = next(pending[-1], None)
        if step is None:
            pending.pop()
            continue
        names, folder = step
        if names > after:
            yield names
        if folder:
            with suppress(OSError):  # removed, or closed by its mode
                pending.append(iter(_children(root, top, names, after)))


def _names(root: int, top: Names) -> list[str]:
    with opened_beneath(root, top, _READ) as folder:
        found = os.listdir(folder)
    if not top and OWN_PREFIX in found:
        found.remove(OWN_PREFIX)
    return found


def _in_order(names: list[str], page: int) -> Iterator[str]:
    """Different names, sorted. A page of very many is found without sorting the rest."""
    if 0 < page * MANY_PAGES < len(names):
        first = nsmallest(page, names)
        yield from first
        names = [name for name in names if name > first[-1]]
    yield from sorted(names)


def _children(root: int, top: Names, below: Names, after: Names) -> list[tuple[Names, bool]]:
    least = after[: len(below) + 1]
    with opened_beneath(root, top + below, _READ) as folder, os.scandir(folder) as entries:
        found = [((*below, entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    return sorted(each for each in found if each[0] >= least and top + each[0] != (OWN_PREFIX,))


class _Lookup:
    """What lies at names below `top`. The folder that was looked into last stays open for its neighbours."""

    def __init__(self, root: int, top: Names) -> None:
        self._root, self._top = root, top
        self._folder: int | None = None
        self._below: Names = ()

    def close(self) -> None:
        """Close that folder."""
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def entry(self, names: Names) -> Entry | None:
        """A link to a regular file inside is told as that file; None if it is gone, or no client can name it."""
        path = "/".join(self._top + names)
        try:
            path.encode()
            found = os.stat(names[-1], dir_fd=self._opened(names[:-1]), follow_symlinks=False)
        except (OSError, UnicodeEncodeError):
            return None
        return Entry.of(path, behind(self._root, self._top + names, found))

    def _opened(self, below: Names) -> int:
        if self._folder is None or below != self._below:
            self.close()
            self._folder, self._below = open_beneath(self._root, self._top + below, FOLDER), below
        return self._folder


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
    except (ValueError, RecursionError):
        after = None
    if not isinstance(after, list) or not after or not all(isinstance(name, str) for name in after):
        raise InvalidParams.field("cursor", "is none that a listing answered")
    return tuple(after)
