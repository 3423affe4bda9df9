"""A file under way: written in `incoming/`, and renamed into `files/` when it is whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import uuid
from contextlib import suppress

from dataproc.errors import Conflict, InvalidParams
from dataproc.storage.files import RENAMING, Absent, Condition, Entry, Matches, Written, behind, require
from dataproc.storage.folders import Folders, Tree
from dataproc.storage.paths import OWN_PREFIX, RelPath, make_parents, open_beneath, opened_folder

_ATTEMPTS = 3  # at a place whose folders a module removes while we make them


class Upload:
    """One file under way. Nothing is on the disk before the first `write`, and nothing of it after `close`.

    Its methods block, from any thread: `close` waits for a write that a cancelled request left behind.
    """

    def __init__(self, folders: Folders, tree: Tree, path: RelPath, hashed: bool) -> None:
        """hashed: whether `commit` will be given a digest. Raises InvalidParams for a path no file can have."""
        if path.directory:
            raise InvalidParams.field("path", "names a directory; directories are made by the files put in them")
        if path.own:
            raise InvalidParams.field(
                "path", f"begins with {OWN_PREFIX}/, which is kept for what dataproc writes itself"
            )
        self._folders = folders
        self._tree = tree
        self._path = path
        self._digest = hashlib.sha256() if hashed else None
        self._name = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._hashing = threading.Lock()
        self._fd: int | None = None
        self._closed = False

    def write(self, data: bytes) -> None:
        """Append. Raises OSError."""
        with self._lock:
            fd = self._opened()
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]

    def hash(self, data: bytes) -> None:
        """Take the bytes into the digest; may run beside `write`."""
        if self._digest is not None:
            with self._hashing:
                self._digest.update(data)

    def commit(self, condition: Condition, sha256: bytes | None) -> Written:
        """Give the file its name; from then on it outlives this process. Raises OSError and DataprocError."""
        with self._lock:
            fd = self._opened()
            if self._digest is not None and self._digest.digest() != sha256:
                raise InvalidParams.field(
                    "Content-Digest", "is not the SHA-256 of the bytes that arrived; send them again"
                )
            for attempt in range(_ATTEMPTS):
                try:
                    created = self._put_in_place(condition)
                    break
                except FileNotFoundError:
                    if attempt == _ATTEMPTS - 1:
                        raise Conflict("the directory was removed while the file was put into it") from None
                except NotADirectoryError:
                    raise Conflict("a name on the way to the file is no directory") from None
            return Written(Entry.of(str(self._path), os.fstat(fd)), created)

    def close(self) -> None:
        """Forget what was not committed."""
        with self._lock:
            self._closed = True
            fd, self._fd = self._fd, None
            if fd is None:
                return
            os.close(fd)
            with suppress(FileNotFoundError), opened_folder(self._tree.incoming) as incoming:
                os.unlink(self._name, dir_fd=incoming)

    def _opened(self) -> int:
        if self._closed:
            raise ValueError("the upload is over")
        if self._fd is None:
            self._fd = self._made()
        return self._fd

    def _made(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with opened_folder(self._tree.incoming) as incoming:
            fd = os.open(self._name, flags, 0o600, dir_fd=incoming)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # a server that starts on this storage leaves it alone ...
            swept = os.fstat(fd).st_nlink == 0  # ... unless it looked just before
            if (owner := self._folders.worker_uid) is not None:
                os.fchown(fd, owner, owner)
        except BaseException:
            os.close(fd)
            raise
        if swept:
            os.close(fd)
            return self._made()
        return fd

    def _put_in_place(self, condition: Condition) -> bool:
        """Whether nothing was there before."""
        above = list(self._path.names[:-1])
        with opened_folder(self._tree.incoming) as incoming, opened_folder(self._tree.files) as root:
            parent = self._parent(root, above, condition)
            try:
                with RENAMING:
                    return self._rename(incoming, root, parent, condition)
            finally:
                os.close(parent)

    def _parent(self, root: int, above: list[str], condition: Condition) -> int:
        if not isinstance(condition, Matches):
            return make_parents(root, above, self._folders.worker_uid)
        try:  # what is to be replaced is there, or else nothing is made for it
            return open_beneath(root, above, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            require(condition, None)
            raise

    def _rename(self, incoming: int, root: int, parent: int, condition: Condition) -> bool:
        name, found = self._path.names[-1], None
        with suppress(FileNotFoundError):
            found = behind(root, self._path.names, os.stat(name, dir_fd=parent, follow_symlinks=False))
        require(condition, found)
        if isinstance(condition, Absent):
            try:  # a link, unlike a rename, does not replace what a module made in this instant
                os.link(self._name, name, src_dir_fd=incoming, dst_dir_fd=parent)
            except FileExistsError:
                require(condition, os.stat(name, dir_fd=parent, follow_symlinks=False))
            os.unlink(self._name, dir_fd=incoming)
        else:
            os.rename(self._name, name, src_dir_fd=incoming, dst_dir_fd=parent)
        return found is None
