"""The kernel's word for what happens in directories. Facts: inotify(7)."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import struct
import termios

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
CREATE, DELETE = 0x100, 0x200
OVERFLOW, IGNORED, IS_FOLDER = 0x4000, 0x8000, 0x40000000
_WANTED = MODIFY | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE
_ONLY_FOLDERS, _NOT_WHAT_IS_UNLINKED = 0x01000000, 0x04000000
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_WRITES = MODIFY | ATTRIB | CLOSE_WRITE  # and no greater bit

_libc = ctypes.CDLL(None, use_errno=True)

Event = tuple[int, int, str]
"""Which watch, what happened, and to which name."""


class Inotify:
    """One queue of events of many directories."""

    def __init__(self, attributes: bool = False) -> None:
        """Where the user has too many of them, this one watches nothing: `add` raises.

        attributes: whether to tell of changed modes and times, too.
        """
        self._wanted = _WANTED | (ATTRIB if attributes else 0) | _ONLY_FOLDERS | _NOT_WHAT_IS_UNLINKED
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._waiting = array.array("i", [0])  # bytes of events

    def add(self, folder: int) -> int:
        """Watch the directory that a descriptor is of. Raises OSError: ENOSPC where the user has too many watches."""
        watch: int = _libc.inotify_add_watch(self._fd, b"/proc/self/fd/%d" % folder, self._wanted)
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        return watch

    def remove(self, watch: int) -> None:
        """Watch it no longer, if it is still watched."""
        _libc.inotify_rm_watch(self._fd, watch)

    def read(self) -> list[Event]:
        """What has happened up to now. Writes to one file that follow each other are one event."""
        if self._fd < 0:
            return []
        fcntl.ioctl(self._fd, termios.FIONREAD, self._waiting)  # mostly nothing: an exception would take longer
        if not self._waiting[0]:
            return []
        data = os.read(self._fd, self._waiting[0])
        found: list[Event] = []
        at, before = 0, (0, 0, b"")
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            name = data[at + _EVENT.size : at + _EVENT.size + length]
            at += _EVENT.size + length
            if mask | before[1] <= _WRITES and before[0] == watch and before[2] == name:
                found[-1] = (watch, mask | found[-1][1], found[-1][2])
            else:
                found.append((watch, mask, os.fsdecode(name.rstrip(b"\0"))))
            before = watch, mask, name
        return found

    def close(self) -> None:
        """Forget all."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close
