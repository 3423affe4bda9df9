"""What a session's directories hold, kept up by the kernel's events instead of by walking.

An event says that a name was touched; `look` asks the disk how it stands. So no order of events and looks leaves a
wrong size for longer than until the next look. New directories are walked once, when they appear.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from dataproc.storage.changes import Changes
from dataproc.storage.folders import Tree
from dataproc.storage.paths import open_beneath, opened_beneath
from dataproc.storage.usage import inotify
from dataproc.storage.usage.touches import BELOW, READ, STAT, Names, Touches
from dataproc.types import Usage

TOPS = ("files", "modules", "locks")
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_GONE = inotify.DELETE | inotify.MOVED_FROM
_NEW = inotify.CREATE | inotify.MOVED_TO
_PREALLOCATED = 2**20  # bytes beyond a file's end that a file system may keep in store for it
_BLIND_PAUSE = 0.5  # seconds between walks where there are no watches left


@dataclass(eq=False, slots=True)
class Folder:
    """A watched directory: the bytes of each file in it, and its directories.

    Where it lies is told by those above it: a path of its own for each would take a server's memory in a deep nest.
    """

    name: str
    above: Folder | None
    watch: int
    sizes: dict[str, int] = field(default_factory=dict)
    folders: dict[str, Folder] = field(default_factory=dict)
    gone: bool = False

    @property
    def names(self) -> Names:
        """Its path, from the top folder on."""
        found, folder = [self.name], self.above
        while folder is not None:
            found.append(folder.name)
            folder = folder.above
        return tuple(reversed(found))


Place = tuple[Folder | None, str]  # a directory by its name in another; the top folders are in none


class Watch:
    """One session. Its methods are called by who holds `lock`; events may be put into `inbox` by anybody."""

    def __init__(
        self, tree: Tree, queue: inotify.Inotify, by_watch: dict[int, tuple[Watch, Folder]], noting: bool = False
    ) -> None:
        """noting: whether to keep for `take` what was touched, as files that are stored elsewhere, too, need it."""
        self.lock = threading.Lock()
        self.inbox: deque[tuple[Folder, int, str]] = deque()
        self.lost = False  # events that never came into the inbox
        self._place = tree.files.parent
        self._top = -1  # a descriptor of it, from the first look on
        self._queue = queue
        self._by_watch = by_watch
        self._tops: dict[str, Folder] = {}
        self._journal: list[tuple[str, bool]] = []  # a path, and whether it was there before it was touched
        self._told: dict[str, int] = {}  # where in the journal a path stands last
        self._marks: list[int] = []
        self.bytes = self.files = 0
        self.hidden = 0  # bytes of files that have no name, but are open
        self.too_deep: Names | None = None  # a directory that no path is long enough for: nobody knows what it holds
        self._blind = False  # where there were no watches left: only walking tells
        self._dirty: dict[tuple[Folder, str], None] = {}
        self._fresh: list[Place] = [(None, name) for name in TOPS]
        self._again = 0.0
        self._touches = Touches() if noting else None

    @property
    def usage(self) -> Usage:
        """As far as it is known."""
        return Usage(self.bytes + self.hidden, self.files)

    @property
    def unsettled(self) -> int:
        """How much `look` has to do; directories, which have to be walked, count as much."""
        return len(self.inbox) + len(self._dirty) + 1000 * (len(self._fresh) + self.lost + self._blind)

    def is_of(self, tree: Tree) -> bool:
        """Whether it watches the folders that are there now: they may have been taken away, and made anew."""
        try:
            here, there = os.fstat(self._top), os.stat(tree.files.parent, follow_symlinks=False)
        except OSError:
            return False
        return (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev)

    # ------------------------------------------------------------------------------------------------- changes

    def take(self) -> Touches:
        """What was touched since it was taken last, up to the last look."""
        assert self._touches is not None
        taken, self._touches = self._touches, Touches()
        taken.sure &= not (self._blind or self.lost)
        return taken

    def mark(self) -> int:
        """The place in the journal from which `changes` is asked for; it has to be, or `forget` called."""
        at = len(self._journal)
        self._marks.append(at)
        return at

    def changes(self, mark: int) -> Changes:
        """What was touched in the session directory since the mark, which is thereby given back."""
        before: dict[str, bool] = {}
        for path, existed in self._journal[mark:]:
            before.setdefault(path, existed)
        self.forget(mark)
        told: tuple[list[str], list[str], list[str]] = ([], [], [])
        for path, existed in sorted(before.items()):
            exists = self._has(path)
            if exists or existed:
                told[2 if not exists else 1 if existed else 0].append(path)
        return Changes(*map(tuple, told))

    def forget(self, mark: int) -> None:
        """Give a mark back."""
        self._marks.remove(mark)
        if not self._marks:
            self._journal, self._told = [], {}

    def _note(self, folder: Folder, name: str, existed: bool) -> None:
        if not self._marks:
            return
        top, *below = folder.names
        if top != "files":
            return
        path = "/".join((*below, name))
        if self._told.get(path, -1) < self._marks[-1]:
            self._told[path] = len(self._journal)
            self._journal.append((path, existed))

    def _has(self, path: str) -> bool:
        *above, name = path.split("/")
        folder = self._find(("files", *above))
        return folder is not None and name in folder.sizes

    # -------------------------------------------------------------------------------------------------- events

    def _see(self, folder: Folder, mask: int, name: str) -> None:
        if folder.gone:
            return  # where it is now, if anywhere, it is walked
        if self._touches is not None:
            _touched(self._touches, folder, mask, name)
            if mask & ~inotify.IS_FOLDER == inotify.ATTRIB:
                return
        if mask & inotify.IS_FOLDER:
            if mask & (_GONE | _NEW):
                self._drop(folder, name)
            if mask & _NEW:
                self._fresh.append((folder, name))
            return
        self._note(folder, name, name in folder.sizes)
        if mask & _GONE:
            self._set(folder, name, None)
        elif mask & _NEW and name not in folder.sizes:
            self._set(folder, name, 0)
        self._dirty[folder, name] = None

    def _set(self, folder: Folder, name: str, size: int | None) -> None:
        """What is known of a file: its bytes, or that it is gone."""
        if folder.gone:
            return
        known = folder.sizes.get(name)
        if size is None:
            if known is not None:
                del folder.sizes[name]
                self.bytes -= known
                self.files -= 1
        else:
            folder.sizes[name] = size
            self.bytes += size - (known or 0)
            self.files += known is None

    def _drop(self, parent: Folder, name: str) -> None:
        """A directory is gone from there, with all that was known in it."""
        todo = [found] if (found := parent.folders.pop(name, None)) is not None else []
        while todo:
            folder = todo.pop()
            self.files -= 1
            self._forget(folder)
            for file in list(folder.sizes):
                self._note(folder, file, True)
                self._set(folder, file, None)
            folder.gone = True
            todo.extend(folder.folders.values())
            folder.folders = {}  # no loops of references, which would be there until the collector comes

    def _forget(self, folder: Folder) -> None:
        if self._by_watch.get(folder.watch, (None, None))[1] is folder:
            del self._by_watch[folder.watch]
            self._queue.remove(folder.watch)

    def end(self) -> None:
        """Watch nothing any more."""
        todo = list(self._tops.values())
        while todo:
            folder = todo.pop()
            self._forget(folder)
            todo.extend(folder.folders.values())
            folder.folders = {}
        self._tops = {}

    def __del__(self) -> None:  # not in `end`: a thread may be looking
        if self._top >= 0:
            os.close(self._top)

    def _find(self, names: Names) -> Folder | None:
        folder = self._tops.get(names[0])
        for name in names[1:]:
            if folder is None:
                return None
            folder = folder.folders.get(name)
        return folder

    # -------------------------------------------------------------------------------------------------- looking

    def touch(self, names: Names) -> None:
        """Look at a file again, though no event told of it."""
        if (folder := self._find(names[:-1])) is not None and names[-1] in folder.sizes:
            self._dirty[folder, names[-1]] = None

    def look(self) -> None:
        """Take in the events, ask the disk about all that was touched, and walk what is new. Blocks. Raises OSError."""
        try:
            self._look()
        except BaseException:
            self.lost = True  # what was not looked at is found by the next walk
            raise

    def _look(self) -> None:
        while self.inbox:
            self._see(*self.inbox.popleft())
        if self.too_deep is not None and self._stat(self._top, self.too_deep) is None:
            self.too_deep, self.lost = None, True  # there may be others
        begun = time.monotonic()
        blind = self._blind and begun >= self._again
        if self.lost or blind:
            self.lost = self._blind = False
            if self._touches is not None:
                self._touches.sure = False
            self._fresh = [(None, name) for name in TOPS]
        dirty, self._dirty = self._dirty, {}
        fresh, self._fresh = self._fresh, []
        with suppress(FileNotFoundError):
            if self._top < 0:
                self._top = os.open(self._place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            for folder, name in dirty:
                self._set(folder, name, self._size(self._top, folder, name))
            for place in fresh:
                self._walk(self._top, place)
        if blind:
            self._again = time.monotonic() + max(_BLIND_PAUSE, 5 * (time.monotonic() - begun))

    def _size(self, top: int, folder: Folder, name: str) -> int | None:
        found = self._stat(top, (*folder.names, name))
        return None if found is None or stat.S_ISDIR(found.st_mode) else taken(found, holes=self._touches is None)

    def _stat(self, top: int, names: Names) -> os.stat_result | None:
        *above, name = names
        try:
            if len(above) == 1:  # no module can put a link in the place of a top folder
                return os.stat(f"{above[0]}/{name}", dir_fd=top, follow_symlinks=False)
            with opened_beneath(top, above) as fd:  # the whole path may be longer than any may be
                return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return None

    def _walk(self, top: int, place: Place) -> None:
        todo = [place]
        while todo:
            above, name = todo.pop()
            try:
                folder, below = self._read(top, above, name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG or above is None:
                    raise
                self.too_deep = (*above.names, name)
            else:
                todo.extend((folder, each) for each in below)

    def _read(self, top: int, above: Folder | None, name: str) -> tuple[Folder, list[str]]:
        """Take in one directory as it is; it, and its directories, which are to be read next."""
        if above is not None and above.gone:
            raise FileNotFoundError(errno.ENOENT, "gone meanwhile")
        names = (name,) if above is None else (*above.names, name)
        fd = _opened(top, names)
        try:
            folder = self._watched(above, name, fd)
            found: dict[str, int] = {}
            below = []
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                        continue
                    with suppress(OSError):  # gone meanwhile
                        found[entry.name] = taken(entry.stat(follow_symlinks=False), holes=self._touches is None)
        finally:
            os.close(fd)
        for each in folder.sizes.keys() | found.keys():
            if folder.sizes.get(each) != found.get(each):
                self._note(folder, each, each in folder.sizes)
                self._set(folder, each, found.get(each))
        for each in folder.folders.keys() - set(below):
            self._drop(folder, each)
        return folder, below

    def _watched(self, above: Folder | None, name: str, fd: int) -> Folder:
        holder = self._tops if above is None else above.folders
        folder = holder.get(name)
        try:
            watch = self._queue.add(fd)
        except OSError:
            watch, self._blind = -1, True
        if folder is None:
            holder[name] = folder = Folder(name, above, watch)
            self.files += above is not None
        elif folder.watch != watch:
            self._forget(folder)  # another directory of that name
            folder.watch = watch
        if watch >= 0:
            self._by_watch[watch] = (self, folder)
        return folder


def _touched(touches: Touches, folder: Folder, mask: int, name: str) -> None:
    names = (*folder.names, name)
    if not name:
        return  # the directory itself: the one above tells it, too
    if names[0] == "locks":
        if mask & _NEW:  # it may be another name for a file of the session
            touches.add(names, STAT)
    elif mask & inotify.IS_FOLDER:
        touches.add(names, BELOW if mask & (_GONE | _NEW) else STAT)
    else:
        touches.add(names, READ if mask & ~inotify.ATTRIB else STAT)


def taken(found: os.stat_result, *, holes: bool = True) -> int:
    """The bytes that a file takes: its size, less where it has holes, more where room was kept beyond its end.

    holes: whether those are spared; a store of objects knows none.
    """
    held = found.st_blocks * 512
    if held > found.st_size + _PREALLOCATED:
        return held
    return min(held, found.st_size) if holes or not stat.S_ISREG(found.st_mode) else found.st_size


def _opened(top: int, names: Names) -> int:
    """A descriptor to read a directory by, though a module closed it to its own uid: a quota has to see."""
    try:
        return open_beneath(top, names, _READ)
    except PermissionError:
        with opened_beneath(top, names, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW) as pinned:
            os.chmod(f"/proc/self/fd/{pinned}", 0o700)
            return open_beneath(pinned, (), os.O_RDONLY | os.O_DIRECTORY)
