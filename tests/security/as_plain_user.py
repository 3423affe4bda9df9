"""Become a plain user who can read the interpreter and this package, wherever root keeps them; then run a command.

`python as_plain_user.py UID FOLDER… -- COMMAND…`: each folder stays where it is, but the closed folders above it are
covered by open ones, in a mount namespace that only the command sees. Needs root.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dataproc.engine import syscalls


def closed_above(folder: Path) -> Path | None:
    """The topmost folder on the way that others may not pass."""
    return next((one for one in [*folder.parents][::-1] if not one.stat().st_mode & 0o001), None)


def show(folders: list[Path]) -> None:
    """Make every folder reachable for everybody."""
    hidden = {folder: above for folder in folders if (above := closed_above(folder)) is not None}
    trees = {
        folder: syscalls.open_tree(
            str(folder), syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC | syscalls.AT_RECURSIVE
        )
        for folder in hidden
    }
    for above in set(hidden.values()):
        syscalls.mount("tmpfs", str(above), "tmpfs", 0, "mode=755")
    for folder, tree in trees.items():
        folder.mkdir(parents=True, exist_ok=True)
        syscalls.move_mount(tree, str(folder))


def main() -> None:
    """Do it."""
    mark = sys.argv.index("--")
    uid, folders, command = int(sys.argv[1]), sys.argv[2:mark], sys.argv[mark + 1 :]
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    show([Path(folder) for folder in folders])
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.environ["HOME"] = "/nonexistent"
    os.execv(command[0], command)


main()
