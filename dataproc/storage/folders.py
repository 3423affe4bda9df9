"""Where things lie in a local folder, and whose they are.

Everything above a session's own folders is the server's, mode 0700; what workers write to belongs to their uid where
the server is root. So a process of that uid can walk to nothing: workers are handed their folders as mounts.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dataproc.errors import InvalidParams
from dataproc.settings import Settings
from dataproc.storage.paths import opened_folder
from dataproc.storage.trash import Trash
from dataproc.types import GATEWAY_PREFIX, SESSION_ID

RUNS = ".runs"  # among the modules' folders: trees of runs under way, counted and never uploaded
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_libc = ctypes.CDLL(None, use_errno=True)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Tree:
    """The real folders of one session on this machine: what `/files` serves, per module, and the lock files."""

    files: Path
    modules: Path
    locks: Path

    @property
    def incoming(self) -> Path:
        """Where the server writes a file before it is renamed into `files`; no worker sees it."""
        return self.files.parent / "incoming"


def session_place(session_id: str) -> str:
    """`sessions/<first two>/<id>` of a session id, ours or a gateway's. Raises InvalidParams."""
    bare = session_id.removeprefix(GATEWAY_PREFIX)
    if not SESSION_ID.fullmatch(bare):
        raise InvalidParams.field("session_id", "is no session id")
    return f"sessions/{bare[:2]}/{session_id}"


class Folders:
    """A local root with the layout of the storage: makes what is missing, and moves to the trash what goes."""

    def __init__(self, root: Path, worker_uid: int | None, fsync: bool) -> None:
        """worker_uid: whom the folders of sessions are given to, where the server is root; else None."""
        self.root = root
        self.worker_uid = worker_uid
        self.fsync = fsync
        for folder in (root, root / "sessions", root / "applications", root / "trash"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.trash = Trash(root / "trash")

    @classmethod
    def of(cls, settings: Settings, root: Path) -> Folders:
        """As the settings say."""
        return cls(root, settings.worker_uid if os.geteuid() == 0 else None, settings.fsync)

    def tree(self, session_id: str) -> Tree:
        """The places of a session's folders, whether or not they are there."""
        top = self.root / session_place(session_id)
        return Tree(top / "files", top / "modules", top / "locks")

    def make(self, session_id: str) -> Tree:
        """The folders of a session, made as far as they are missing. Raises OSError."""
        tree = self.tree(session_id)
        top = tree.files.parent
        with suppress(FileExistsError):
            top.parent.mkdir(mode=0o700)
        with suppress(FileExistsError):
            top.mkdir(mode=0o700)
        self._own(top, None)
        self._own(top / "incoming", None)
        for folder in (tree.files, tree.modules, tree.locks):
            self._own(folder, self.worker_uid)
        return tree

    def application(self, key: str, module: str) -> Path:
        """The folder that a module keeps across the sessions of a key, made if it is missing. Raises OSError."""
        for loc, name in (("key", key), ("module", module)):
            if not _NAME.fullmatch(name):
                raise InvalidParams.field(loc, "is no name that a folder can have")
        if key == "shared":  # a folder of its own in the layout, which no key's id may lead into
            raise InvalidParams.field("key", "is reserved")
        top = self.root / "applications" / key
        self._own(top, None)
        self._own(top / module, self.worker_uid)
        return top / module

    def discard(self, session_id: str) -> None:
        """Move a session's folders out of reach; without any, nothing happens. Raises OSError."""
        top = self.tree(session_id).files.parent
        with suppress(FileNotFoundError), opened_folder(top.parent) as parent:
            self.trash.take(parent, top.name)

    def sweep(self) -> None:
        """Finish, in the background, what an earlier process left: trees in the trash, uploads that were broken off."""
        self.trash.sweep()
        self.trash.later(self._drop_abandoned)

    def sync(self, session_id: str) -> None:
        """Wait until everything of a session is on the disk itself, a module's own writes too. Raises OSError."""
        with opened_folder(self.tree(session_id).files.parent) as top:
            fd = os.open(".", _FOLDER, dir_fd=top)
        try:
            if _libc.syncfs(fd) != 0:
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(fd)

    def check(self) -> None:
        """Write and remove a file. Raises OSError."""
        with opened_folder(self.root / "trash") as trash:
            name = f"probe-{uuid.uuid4().hex}"
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=trash))
            with suppress(FileNotFoundError):  # a server that started just now swept it up
                os.unlink(name, dir_fd=trash)

    def _drop_abandoned(self) -> None:
        for incoming in self.root.glob("sessions/??/*/incoming"):
            if self.trash.stopping:
                return
            with suppress(OSError):  # its session ended just now
                _drop_unlocked(incoming)

    def _own(self, folder: Path, uid: int | None) -> None:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if uid is None:
            return
        fd = os.open(folder, _FOLDER)
        try:
            if os.fstat(fd).st_uid != uid:  # new, or a crash came between the two steps
                os.fchown(fd, uid, uid)
        finally:
            os.close(fd)


def _drop_unlocked(incoming: Path) -> None:
    """Unlink what nobody writes to any more: who does holds a lock on it, in this process or another."""
    with opened_folder(incoming) as folder:
        for name in os.listdir(incoming):
            with suppress(OSError):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(name, dir_fd=folder)
                finally:
                    os.close(fd)
