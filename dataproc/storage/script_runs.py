"""Where the runs of an xData script module have their trees: beside the session's files, and gone with each run.

A run's tree belongs to the workers' uid, what it is given to the server, which shows it read-only. Nothing here follows
a link that a script left.
"""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from dataproc.storage.folders import RUNS, Folders, Tree
from dataproc.storage.paths import opened_folder


class ScriptRuns:
    """The trees of this process's runs. What an earlier life of the node left is swept at the start."""

    def __init__(self, folders: Folders, node: str) -> None:
        self._folders, self._node = folders, node
        self._life = f"{node}.{uuid.uuid4().hex[:12]}"

    def places(self, tree: Tree, module: str) -> dict[str, Path]:
        """The folders that a worker of the module is shown: its own session/, the runs' trees, what they are given."""
        runs, given = tree.modules / RUNS, tree.files.parent / "given"  # what is given takes no room of the session's
        own = tree.modules / module
        return {"module-session": own, "runs": runs / self._life / module, "given": given / self._life / module}

    def make(self, tree: Tree, module: str, run: str) -> dict[str, Path]:
        """The places, made as far as they are missing, with a folder for what the run is given. Raises OSError."""
        places = self.places(tree, module)
        for name in ("runs", "given"):
            places[name].parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, owner in (("module-session", self._folders.worker_uid), ("runs", self._folders.worker_uid)):
            with suppress(FileExistsError):
                places[name].mkdir(mode=0o700)
                if owner is not None:
                    os.chown(places[name], owner, owner)
        for folder in (places["given"], places["given"] / run):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
        return places

    def discard(self, places: dict[str, Path], run: str) -> None:
        """Put a run's tree, and what it was given, out of reach; they are deleted in the background."""
        for name in ("runs", "given"):
            with suppress(FileNotFoundError), opened_folder(places[name]) as parent:
                self._folders.trash.take(parent, run)

    def sweep(self) -> None:
        """Delete, in the background, the trees of runs that an earlier life of this node left."""
        self._folders.trash.later(self._sweep)

    def _sweep(self) -> None:
        root = self._folders.root
        for left in (*root.glob(f"sessions/??/*/modules/{RUNS}"), *root.glob("sessions/??/*/given")):
            with suppress(OSError), opened_folder(left) as parent:
                for name in os.listdir(left):
                    if name.startswith(f"{self._node}.") and name != self._life:
                        self._folders.trash.take(parent, name)


def give(gift: Path | str, folder: Path, place: str) -> None:
    """Show a file of the server's at a place in what a run is given, without copying it where that can be; or a text.

    Raises OSError.
    """
    target = folder / place
    for above in reversed(target.relative_to(folder).parents[:-1]):
        with suppress(FileExistsError):
            (folder / above).mkdir()
            (folder / above).chmod(0o755)
    if isinstance(gift, str):
        target.write_text(gift, encoding="utf-8")
    else:
        try:
            os.link(gift, target)
            return
        except OSError:  # another file system, or too many links
            shutil.copyfile(gift, target)
    target.chmod(0o444)
