"""What no event tells of a process's writes: through mappings of files, and to files that have no name any more.

Facts: proc_pid_fd(5), proc_pid_maps(5). Where /proc does not show a process to us, nothing is found.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dataproc.storage.folders import Tree

# a shared mapping that may be written to: its ends, its inode, its path
_SHARED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) .w.s [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ (\d+) +(/[^\n]*)$", re.MULTILINE)
_DELETED = b" (deleted)"
_AS_SEEN_INSIDE = "/session/"
_NOBODYS = (b"/memfd:", b"/dev/", b"/SYSV")
_OTHERS = ("/application/", "/locks/", "/work/", "/tmp/", "/dev/", "/proc/", "/xdata/runs/", "/xdata/given/")  # noqa: S108


def tree_of(pid: int) -> set[int]:
    """A worker's process and all that it started, those too that were handed to the first of its namespace."""
    found = {pid}
    todo = [pid, *_first_of_namespace(pid)]
    while todo:
        for listed in _children(todo.pop()):
            below = set(map(int, listed.split())) - found
            found |= below
            todo.extend(below)
    return found


def _children(pid: int) -> Iterator[bytes]:
    """What each of its threads has started; each commit on object storage waits for this."""
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb", buffering=0) as told:
                yield told.read()


def _first_of_namespace(pid: int) -> list[int]:
    """The parent, if it is process 1 of a namespace of the worker's own."""
    with suppress(OSError, IndexError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        parent = next(line.split()[1] for line in lines if line.startswith("PPid:"))
        names = Path(f"/proc/{parent}/status").read_text().splitlines()
        inside = next(line.split()[1:] for line in names if line.startswith("NSpid:"))
        if len(inside) > 1 and inside[-1] == "1":
            return [int(parent)]
    return []


def look(pids: Iterable[int], tree: Tree) -> tuple[int, set[tuple[str, ...]]]:
    """Bytes of files without a name that the processes hold, and names of files that they may write to unseen."""
    with suppress(OSError):
        device = os.stat(tree.files).st_dev
        nameless: dict[int, int] = {}
        mapped: set[tuple[str, ...]] = set()
        for pid in pids:
            nameless |= dict(_open_files(pid, device))
            for inode, size, path in _mappings(pid):
                if path is None:
                    nameless.setdefault(inode, size)
                elif (names := _names(path, tree)) is not None:
                    mapped.add(names)
        return sum(nameless.values()), mapped
    return 0, set()


@dataclass(slots=True)
class Writable:
    """Files of a session that processes may write to without an event.

    mapped: those that are mapped. opened: those that are open for reading and writing, and may have been mapped.
    unclear: whether there is something mapped of which it cannot be told whether it is the session's.
    """

    mapped: set[tuple[str, ...]] = field(default_factory=set)
    opened: set[tuple[str, ...]] = field(default_factory=set)
    unclear: bool = False


def writable(pids: Iterable[int], tree: Tree) -> Writable:
    """What the processes, and those that they started, may write to unseen."""
    found = Writable()
    for pid in set().union(*map(tree_of, pids)):
        try:
            _add_mapped(found, Path(f"/proc/{pid}/maps").read_bytes(), tree)
            _add_opened(found, pid, tree)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended: what it had open was closed, which is an event
        except OSError:
            found.unclear = True
    return found


def _add_mapped(found: Writable, maps: bytes, tree: Tree) -> None:
    if b"w-s " not in maps and b"wxs " not in maps:
        return
    for _, _, _, path in _SHARED.findall(maps):
        if path.startswith(_NOBODYS):
            continue
        for written in {path, path.replace(b"\\012", b"\n")}:  # which of the two it was cannot be told
            if (names := _names(os.fsdecode(written), tree)) is not None:
                found.mapped.add(names)
            elif not os.fsdecode(path).startswith(_OTHERS):
                found.unclear = True


def _add_opened(found: Writable, pid: int, tree: Tree) -> None:
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            names = _names(os.readlink(f"/proc/{pid}/fd/{name}"), tree)
            if names is not None and _both_ways(Path(f"/proc/{pid}/fdinfo/{name}").read_text()):
                found.opened.add(names)


def _both_ways(told: str) -> bool:
    flags = next((line.split()[1] for line in told.splitlines() if line.startswith("flags:")), "2")
    return int(flags, 8) & os.O_ACCMODE == os.O_RDWR


def _open_files(pid: int, device: int) -> Iterator[tuple[int, int]]:
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found = os.stat(f"/proc/{pid}/fd/{name}")
                if stat.S_ISREG(found.st_mode) and not found.st_nlink and found.st_dev == device:
                    yield found.st_ino, found.st_blocks * 512


def _mappings(pid: int) -> Iterator[tuple[int, int, str | None]]:
    with suppress(OSError):
        for start, end, inode, path in _SHARED.findall(Path(f"/proc/{pid}/maps").read_bytes()):
            if path.endswith(_DELETED):
                if not path.startswith(_NOBODYS):
                    yield int(inode), int(end, 16) - int(start, 16), None
            else:
                yield int(inode), 0, os.fsdecode(path)


def _names(path: str, tree: Tree) -> tuple[str, ...] | None:
    if path.startswith(_AS_SEEN_INSIDE):
        return ("files", *path.removeprefix(_AS_SEEN_INSIDE).split("/"))
    top = f"{tree.files.parent}/"
    return tuple(path.removeprefix(top).split("/")) if path.startswith(top) else None
