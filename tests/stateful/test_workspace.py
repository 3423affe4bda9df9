"""A workspace against a dict: whatever is written, deleted and looked at, in any order, the two agree."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from dataproc.clock import SystemClock
from dataproc.errors import Conflict, InvalidParams, NotFound
from dataproc.settings import Settings
from dataproc.storage import Workspaces, open_workspaces
from dataproc.storage.listing import Selection
from dataproc.storage.object_store.leases import Ledger, MemoryLeases
from dataproc.storage.paths import read_path

SESSION = "5e551011-0000-4000-8000-000000000001"
NAMES = st.sampled_from(["a", "b", "a.b", "ä b"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


class WorkspaceMachine(RuleBasedStateMachine):
    """Local storage; `files` is the model: path to content. Folders that were made stay."""

    written = Bundle("written")

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.workspaces = self.opened()
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = set()

    def opened(self) -> Workspaces:
        return open_workspaces(Settings(storage_url=str(self.place / "storage")))

    @rule(target=written, path=PATHS, data=st.binary(max_size=8))
    def write(self, path: str, data: bytes) -> str:
        """A file is put where no folder is, and below no file."""
        above = {str(parent) for parent in Path(path).parents} - {"."}
        work = self.workspaces.of(SESSION).write(read_path(path), chunks(data))
        if path in self.folders or above & self.files.keys():
            with pytest.raises(Conflict):
                self.loop.run_until_complete(work)
            return path
        assert self.loop.run_until_complete(work).created == (path not in self.files)
        self.files[path] = data
        self.folders |= above
        return path

    @rule(path=written | PATHS)
    def read(self, path: str) -> None:
        """What was written is read; a folder, and what is not there, is told apart."""
        work = self.workspaces.of(SESSION).read(read_path(path))
        if path not in self.files:
            with pytest.raises(InvalidParams if path in self.folders else NotFound):
                self.loop.run_until_complete(work)
            return
        reading = self.loop.run_until_complete(work)
        assert reading.pread(100, 0) == self.files[path]
        reading.close()

    @rule(path=written | PATHS, recursive=st.booleans())
    def delete(self, path: str, recursive: bool) -> None:
        """A file goes; a folder only as a whole."""
        work = self.workspaces.of(SESSION).delete(read_path(path), recursive=recursive)
        if path in self.files:
            self.loop.run_until_complete(work)
            del self.files[path]
        elif path not in self.folders:
            with pytest.raises(NotFound):
                self.loop.run_until_complete(work)
        elif not recursive:
            with pytest.raises(InvalidParams):
                self.loop.run_until_complete(work)
        else:
            self.loop.run_until_complete(work)
            self.files = {name: data for name, data in self.files.items() if not name.startswith(path + "/")}
            self.folders = {name for name in self.folders if name != path and not name.startswith(path + "/")}

    @rule()
    def restart(self) -> None:
        """A new process finds what the old one left."""
        self.loop.run_until_complete(self.workspaces.close())
        self.workspaces = self.opened()
        self.loop.run_until_complete(self.workspaces.sweep())

    @rule(path=PATHS, data=st.binary(max_size=8))
    def a_run_writes(self, path: str, data: bytes) -> None:
        """A file that a module writes in a checkout is a file like any other."""
        above = {str(parent) for parent in Path(path).parents} - {"."}
        if path in self.folders or above & self.files.keys():
            return

        async def run() -> None:
            async with self.workspaces.of(SESSION).checkout() as tree:
                place = tree.files / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)

        self.loop.run_until_complete(run())
        self.files[path] = data
        self.folders |= above

    @rule(limit=st.integers(1, 4), recursive=st.booleans())
    def list_in_pages(self, limit: int, recursive: bool) -> None:
        """All pages together are all entries, in order, each once."""
        seen: list[str] = []
        cursor = None
        while True:
            selection = Selection(recursive, None, limit, cursor)
            page = self.loop.run_until_complete(self.workspaces.of(SESSION).list(read_path(""), selection))
            assert len(page.entries) <= limit
            seen += [entry.path for entry in page.entries]
            if (cursor := page.cursor) is None:
                break
        every = self.files.keys() | self.folders
        assert seen == sorted(path for path in every if recursive or "/" not in path) or recursive
        assert seen == sorted(
            (path for path in every if recursive or "/" not in path), key=lambda path: path.split("/")
        )

    @invariant()
    def sizes_agree(self) -> None:
        """The listing's sizes are those of the model."""
        listing = self.loop.run_until_complete(
            self.workspaces.of(SESSION).list(read_path(""), Selection(recursive=True))
        )
        found = {entry.path: entry.size for entry in listing.entries if entry.type == "file"}
        assert found == {path: len(data) for path, data in self.files.items()}

    def teardown(self) -> None:
        self.loop.run_until_complete(self.workspaces.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.place)


class MemoryMachine(WorkspaceMachine):
    """The same on memory://, where a restart is a machine without copies."""

    def __init__(self) -> None:
        self.name, self.ledger = uuid.uuid4().hex, Ledger()
        super().__init__()

    def opened(self) -> Workspaces:
        chosen = Settings(
            storage_url=f"memory://{self.name}", database_url="sqlite://", cache_dir=self.place / uuid.uuid4().hex
        )
        return open_workspaces(chosen, leases=MemoryLeases(self.ledger, SystemClock(), 15))


few = settings(max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
TestLocalWorkspace = WorkspaceMachine.TestCase
TestMemoryWorkspace = MemoryMachine.TestCase
TestLocalWorkspace.settings = TestMemoryWorkspace.settings = few
