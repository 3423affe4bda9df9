"""What is to be kept of a session, beside what is kept already: its folders are walked, or only what was touched."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field

from dataproc.storage.folders import Tree
from dataproc.storage.object_store.index import (
    KEPT,
    Found,
    Index,
    Kept,
    KeptFile,
    KeptFolder,
    KeptLink,
    Signature,
    scan,
    signature,
)
from dataproc.storage.paths import MAX_PATH, open_beneath, opened_beneath, opened_folder
from dataproc.storage.usage.touches import BELOW, READ, STAT, Names, Touches

MOST_BELOW = 50  # directories that came or went; beyond, a walk is no dearer
_BLOCK = 2**20


@dataclass
class Survey:
    """What needs no upload, and which files do, with their sizes. seen: each file as it was when it was kept.

    paths: where it differs from what is kept, these files included. linked: whether a file has several names, so that
    a change of it need not be told under the one that is kept.
    """

    entries: dict[str, Kept] = field(default_factory=dict)
    seen: dict[str, Signature] = field(default_factory=dict)
    changed: dict[Names, int] = field(default_factory=dict)
    paths: set[str] = field(default_factory=set)
    linked: bool = False


def survey(tree: Tree, index: Index, seen: dict[str, Signature], touched: Touches) -> Survey:
    """Compare a session's folders with what is kept of them; `touched` says where to look. Raises OSError."""
    few = touched.sure and sum(how == BELOW for how in touched.names.values()) <= MOST_BELOW
    with opened_folder(tree.files.parent) as top:
        if few:
            try:
                return _Look(top, index, seen).of(touched)
            except PermissionError:
                pass  # a module closed a folder: the walk opens it
        return _walked(top, index, seen, touched)


def _walked(top: int, index: Index, seen: dict[str, Signature], touched: Touches) -> Survey:
    walked, sizes = Survey(), dict[Names, int]()
    for names, found, target in scan(top):
        path = "/".join(names)
        if target:
            walked.entries[path] = KeptLink(target)
        elif stat.S_ISDIR(found.st_mode):
            walked.entries[path] = KeptFolder(found.st_mode & 0o777)
        else:
            walked.linked |= found.st_nlink > 1
            doubted = touched.names.get(names, STAT) == READ
            if seen.get(path) == signature(found) and not (doubted and _differs(top, names, index.entries[path])):
                walked.entries[path], walked.seen[path] = index.entries[path], seen[path]
            else:
                sizes[names] = found.st_size
    walked.changed = _longest_first(sizes)
    kept, now = index.entries, walked.entries
    same = {path for path, each in now.items() if (known := kept.get(path)) is each or known == each}
    walked.paths = (now.keys() | kept.keys() | {"/".join(names) for names in sizes}) - same
    return walked


def _longest_first(sizes: dict[Names, int]) -> dict[Names, int]:
    return dict(sorted(sizes.items(), key=lambda each: each[1], reverse=True))


class _Look:
    """A look at what was touched alone."""

    def __init__(self, top: int, index: Index, seen: dict[str, Signature]) -> None:
        self._top, self._index, self._seen = top, index, seen
        self._own = False
        self._sizes: dict[Names, int] = {}
        self.found = Survey(index.entries, seen)

    def of(self, touched: Touches) -> Survey:
        """What a walk would find."""
        for names in sorted(touched.names, key=len):  # what is above first: what is below a link is not ours to see
            how = touched.names[names]
            if names[0] not in KEPT:
                self._look_for_links(names)
            elif len(names) > 1 and len(os.fsencode("/".join(names))) <= MAX_PATH:
                self._take(names, how)
        self.found.changed = _longest_first(self._sizes)
        self.found.paths |= {"/".join(names) for names in self._sizes}
        return self.found

    def _take(self, names: Names, how: int) -> None:
        there = self._at(names)
        if how == BELOW or (there is None) != ("/".join(names) not in self.found.entries):
            self._forget_below(names)
        if there is None:
            self._forget("/".join(names))
            return
        self._put(there, how)
        if how == BELOW and stat.S_ISDIR(there[1].st_mode):
            for below in scan(self._top, within=names):
                self._put(below, STAT)

    def _at(self, names: Names) -> Found | None:
        """What lies there, if it is anything that is kept."""
        *above, name = names
        if len(above) > 1 and not isinstance(self.found.entries.get("/".join(above)), KeptFolder):
            return None
        try:
            with opened_beneath(self._top, above) as folder:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(found.st_mode) else ""
        except (FileNotFoundError, NotADirectoryError):
            return None
        return (names, found, target) if target or stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) else None

    def _put(self, there: Found, how: int) -> None:
        names, found, target = there
        path = "/".join(names)
        kept: Kept
        if target:
            kept = KeptLink(target)
        elif stat.S_ISDIR(found.st_mode):
            kept = KeptFolder(found.st_mode & 0o777)
        else:
            self.found.linked |= found.st_nlink > 1
            known = self._index.entries.get(path)
            same = known is not None and self._seen.get(path) == signature(found)
            if known is None or not same or (how == READ and _differs(self._top, names, known)):
                self._change()  # the caller will put it there
                self._forget(path)
                self._sizes[names] = found.st_size
                return
            kept = known
        self._sizes.pop(names, None)
        if self.found.entries.get(path) != kept:
            self._change()
            self.found.paths.add(path)
            self.found.entries[path] = kept
            self.found.seen.pop(path, None)
            if isinstance(kept, KeptFile):
                self.found.seen[path] = self._seen[path]

    def _forget(self, path: str) -> None:
        self._sizes.pop(tuple(path.split("/")), None)
        if path in self.found.entries:
            self._change()
            self.found.paths.add(path)
            del self.found.entries[path]
            self.found.seen.pop(path, None)

    def _forget_below(self, names: Names) -> None:
        start = "/".join(names) + "/"
        for path in [path for path in self.found.entries if path.startswith(start)]:
            self._forget(path)
        for each in [each for each in self._sizes if each[: len(names)] == names]:
            del self._sizes[each]

    def _change(self) -> None:
        if not self._own:
            self._own = True
            self.found.entries, self.found.seen = dict(self.found.entries), dict(self.found.seen)

    def _look_for_links(self, names: Names) -> None:
        with suppress(OSError), opened_beneath(self._top, names, os.O_PATH | os.O_NOFOLLOW) as fd:
            found = os.fstat(fd)
            self.found.linked |= stat.S_ISREG(found.st_mode) and found.st_nlink > 1


def _differs(top: int, names: Names, kept: Kept) -> bool:
    """Whether a file whose size and times are those of the kept one may have other bytes."""
    if not isinstance(kept, KeptFile) or not kept.sha256:
        return True
    digest = hashlib.sha256()
    try:
        fd = open_beneath(top, names, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        at = 0
        while at <= kept.size and (block := os.pread(fd, _BLOCK, at)):
            digest.update(block)
            at += len(block)
    finally:
        os.close(fd)
    return digest.hexdigest() != kept.sha256
