"""The kernel's word for what happens in directories. Facts: inotify(7)."""

from __future__ import annotations

import ctypes
import os
import struct

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
CREATE, DELETE = 0x100, 0x200
OVERFLOW, IGNORED, IS_FOLDER = 0x4000, 0x8000, 0x40000000
_WANTED = MODIFY | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE
_ONLY_FOLDERS, _NOT_WHAT_IS_UNLINKED = 0x01000000, 0x04000000
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_USUAL, _AT_ONCE = 2**12, 2**18  # bytes read: mostly it is an event or two
_LONGEST = 16 + 256  # bytes of an event

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
        self._room = _USUAL

    def add(self, folder: int) -> int:
        """Watch the directory that a descriptor is of. Raises OSError: ENOSPC where the user has too many watches."""
        watch: int = _libc.inotify_add_watch(self._fd, b"/proc/self/fd/%d" % folder, self._wanted)
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        return watch

    def remove(self, watch: int) -> None:
        """Watch it no longer, if it is still watched."""
        _libc.inotify_rm_watch(self._fd, watch)

    def read(self) -> tuple[list[Event], bool]:
        """What has happened, and whether there may be more."""
        if self._fd < 0:
            return [], False
        try:
            data = os.read(self._fd, self._room)
        except BlockingIOError:
            self._room = _USUAL
            return [], False
        more = len(data) > self._room - _LONGEST
        self._room = _AT_ONCE if more else _USUAL
        found, at = [], 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            found.append((watch, mask, os.fsdecode(data[at - length : at].rstrip(b"\0"))))
        return found, more

    def close(self) -> None:
        """Forget all."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close
