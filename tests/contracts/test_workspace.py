"""What every storage promises of a workspace. An adapter subclasses `WorkspaceContract` and looks behind its back."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import stat
import threading
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dataproc.clock import SystemClock
from dataproc.database import Database
from dataproc.database.leases import DatabaseLeases
from dataproc.errors import Conflict, DataprocError, InvalidParams, NotFound, PreconditionFailed, SessionEnded
from dataproc.settings import Settings
from dataproc.storage import Workspaces, open_workspaces
from dataproc.storage.files import Absent, Matches, Written
from dataproc.storage.listing import Selection
from dataproc.storage.object_store.index import Index, KeptFile
from dataproc.storage.object_store.leases import Ledger, MemoryLeases
from dataproc.storage.paths import read_path
from dataproc.storage.workspace import Workspace
from tests.s3 import S3

SESSION = "5e551011-0000-4000-8000-000000000001"


def everything(folder: Path) -> list[str]:
    """All paths below a folder in which others delete meanwhile."""
    return [os.path.join(top, name) for top, folders, files in os.walk(folder) for name in (*folders, *files)]


async def pieces(*data: bytes) -> AsyncGenerator[bytes, None]:
    for piece in data:
        yield piece


async def put(workspace: Workspace, path: str, *data: bytes, **options: object) -> Written:
    async with aclosing(pieces(*data)) as chunks:
        return await workspace.write(read_path(path), chunks, **options)  # type: ignore[arg-type]


async def get(workspace: Workspace, path: str) -> bytes:
    reading = await workspace.read(read_path(path))
    try:
        return reading.pread(reading.entry.size + 1, 0)
    finally:
        reading.close()


async def names(workspace: Workspace, path: str = "", selection: Selection | None = None) -> list[str]:
    listing = await workspace.list(read_path(path), selection or Selection())
    return [entry.path for entry in listing.entries]


class WorkspaceContract:
    """`node()` opens the storage as a server of that machine; `stored(id)` is what others would find of a session."""

    def node(self, machine: str = "here") -> Workspaces:
        raise NotImplementedError

    def stored(self, session_id: str) -> dict[str, bytes]:
        """Path below `files/` and `modules/` to content, read without the code under test."""
        raise NotImplementedError

    def traces(self, session_id: str) -> list[str]:
        """Everything in the storage that a session has left."""
        raise NotImplementedError

    @pytest.fixture
    async def workspaces(self) -> AsyncIterator[Workspaces]:
        node = self.node()
        await node.sweep()
        yield node
        await node.close()

    async def test_a_new_session_has_empty_folders(self, workspaces: Workspaces) -> None:
        """A checkout makes the folders that are missing."""
        async with workspaces.of(SESSION).checkout() as tree:
            assert [list(folder.iterdir()) for folder in (tree.files, tree.modules, tree.locks)] == [[], [], []]

    async def test_what_is_put_is_what_a_run_finds(self, workspaces: Workspaces) -> None:
        """A file that was put is a plain file of its own name, in folders that were made for it."""
        written = await put(workspaces.of(SESSION), "a/b c/d.csv", b"1,", b"2")
        async with workspaces.of(SESSION).checkout() as tree:
            assert (tree.files / "a/b c/d.csv").read_bytes() == b"1,2"
        assert (written.created, written.entry.size) == (True, 3)

    async def test_what_is_put_is_kept(self, workspaces: Workspaces) -> None:
        """When `write` returns, the file is in the storage."""
        await put(workspaces.of(SESSION), "a/b", b"new")
        assert self.stored(SESSION) == {"files/a/b": b"new"}

    async def test_what_a_run_leaves_is_kept(self, workspaces: Workspaces) -> None:
        """When the block ends, what was written in the folders is in the storage; lock files need not be."""
        async with workspaces.of(SESSION).checkout() as tree:
            (tree.files / "out").write_bytes(b"1")
            (tree.modules / "m").mkdir()
            (tree.modules / "m" / "state").write_bytes(b"2")
        assert self.stored(SESSION) == {"files/out": b"1", "modules/m/state": b"2"}

    async def test_what_a_failed_run_leaves_is_kept(self, workspaces: Workspaces) -> None:
        """A block that raises keeps its files too, and its error goes on."""

        async def run() -> None:
            async with workspaces.of(SESSION).checkout() as tree:
                (tree.files / "out").write_bytes(b"1")
                raise RuntimeError("theirs")

        with pytest.raises(RuntimeError, match="theirs"):
            await run()
        assert self.stored(SESSION) == {"files/out": b"1"}

    async def test_changes_and_deletions_are_kept(self, workspaces: Workspaces) -> None:
        """A second block's overwrites, renames and deletions are in the storage, a file in a folder's place too."""
        async with workspaces.of(SESSION).checkout() as tree:
            (tree.files / "d").mkdir()
            (tree.files / "d" / "x").write_bytes(b"1")
            (tree.files / "gone").write_bytes(b"2")
            (tree.files / "same").write_bytes(b"3")
        async with workspaces.of(SESSION).checkout() as tree:
            (tree.files / "d" / "x").rename(tree.files / "moved")
            (tree.files / "d").rmdir()
            (tree.files / "d").write_bytes(b"a file now")
            (tree.files / "gone").unlink()
        assert self.stored(SESSION) == {"files/d": b"a file now", "files/moved": b"1", "files/same": b"3"}

    async def test_what_comes_and_goes_costs_no_neighbour(self, workspaces: Workspaces) -> None:
        """Files that another run makes and removes during a commit do not keep others from being kept."""
        done = threading.Event()
        async with workspaces.of(SESSION).checkout() as tree:
            for each in range(50):
                (tree.files / f"kept{each}").write_bytes(b"%d" % each)

        def busy() -> None:
            while not done.is_set():
                for each in range(20):
                    (tree.files / f"fleeting{each}").write_bytes(b"1")
                for each in range(20):
                    (tree.files / f"fleeting{each}").unlink()

        thread = threading.Thread(target=busy)
        thread.start()
        try:
            for each in range(20):
                async with workspaces.of(SESSION).checkout() as tree:
                    (tree.files / "count").write_bytes(b"%d" % each)
        finally:
            done.set()
            thread.join()
        stored = self.stored(SESSION)
        assert {name: data for name, data in stored.items() if "fleeting" not in name} == {
            "files/count": b"19",
            **{f"files/kept{each}": b"%d" % each for each in range(50)},
        }

    async def test_another_server_finds_an_equal_tree(self, workspaces: Workspaces) -> None:
        """Empty directories, mode bits, times and links inside come along."""
        async with workspaces.of(SESSION).checkout() as tree:
            (tree.files / "empty").mkdir()
            script = tree.files / "run.sh"
            script.write_bytes(b"#!/bin/sh\n")
            script.chmod(0o750)
            os.utime(script, ns=(10**18, 10**18))
            (tree.files / "link").symlink_to("run.sh")
            os.mkfifo(tree.files / "fifo")
        await workspaces.close()
        other = self.node("there")
        async with other.of(SESSION).checkout() as tree:
            found = (tree.files / "run.sh").stat()
            assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o750, 10**18)
            assert (tree.files / "empty").is_dir()
            assert os.readlink(tree.files / "link") == "run.sh"
        await other.close()

    async def test_names_that_are_no_text_are_kept(self, workspaces: Workspaces) -> None:
        """A file whose name is no UTF-8, or odd, is brought along; a listing leaves out what no client can name."""
        odd = [b"\xff\xfe", b"a::b", b"line\nbreak", b"back\\slash", b"*?[x]", b" "]
        async with workspaces.of(SESSION).checkout() as tree:
            for name in odd:
                os.mknod(os.fsencode(tree.files) + b"/" + name)
        await workspaces.close()
        other = self.node("there")
        async with other.of(SESSION).checkout() as tree:
            assert sorted(os.listdir(os.fsencode(tree.files))) == sorted(odd)
        assert len(await names(other.of(SESSION))) == len(odd) - 1
        await other.close()

    async def test_two_hundred_first_checkouts_make_one_directory(self, workspaces: Workspaces) -> None:
        """Concurrent first checkouts all get the same folders, and lose no line that is written there."""

        async def append(line: int) -> Path:
            async with workspaces.of(SESSION).checkout() as tree:
                with (tree.files / "lines").open("a") as file:
                    file.write(f"{line}\n")
                return tree.files

        places = await asyncio.gather(*(append(line) for line in range(200)))
        assert len(set(places)) == 1
        assert sorted(map(int, self.stored(SESSION)["files/lines"].split())) == list(range(200))

    async def test_an_upload_broken_off_leaves_nothing(self, workspaces: Workspaces) -> None:
        """A body that ends in an error leaves neither the file, nor its folders, nor a part of it."""

        async def broken() -> AsyncGenerator[bytes, None]:
            yield b"half"
            raise ConnectionResetError

        async with aclosing(broken()) as chunks:
            with pytest.raises(ConnectionResetError):
                await workspaces.of(SESSION).write(read_path("a/b"), chunks)
        assert self.stored(SESSION) == {}
        async with workspaces.of(SESSION).checkout() as tree:
            assert list(tree.files.iterdir()) == list(tree.incoming.iterdir()) == []

    async def test_a_cancelled_upload_leaves_nothing(self, workspaces: Workspaces) -> None:
        """A request that is cancelled while its body arrives leaves no part of it."""
        begun = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield b"half"
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(workspaces.of(SESSION).write(read_path("a"), endless()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with workspaces.of(SESSION).checkout() as tree:
            assert list(tree.files.iterdir()) == list(tree.incoming.iterdir()) == []

    async def test_a_reader_keeps_the_file_it_opened(self, workspaces: Workspaces) -> None:
        """Overwriting replaces the file as a whole: who has the old one open reads it to its end."""
        workspace = workspaces.of(SESSION)
        await put(workspace, "a", b"old")
        reading = await workspace.read(read_path("a"))
        again = await put(workspace, "a", b"newer")
        assert (reading.pread(10, 0), await get(workspace, "a"), again.created) == (b"old", b"newer", False)
        reading.close()

    async def test_a_condition_is_kept_to(self, workspaces: Workspaces) -> None:
        """`Absent` writes only what is not there, `Matches` only over what the caller has seen."""
        workspace = workspaces.of(SESSION)
        first = await put(workspace, "a", b"1", condition=Absent())
        with pytest.raises(PreconditionFailed):
            await put(workspace, "a", b"2", condition=Absent())
        second = await put(workspace, "a", b"3", condition=Matches(frozenset({first.entry.etag})))
        with pytest.raises(PreconditionFailed):
            await put(workspace, "a", b"4", condition=Matches(frozenset({first.entry.etag})))
        with pytest.raises(PreconditionFailed):
            await put(workspace, "b/c", b"5", condition=Matches(frozenset()))
        assert await names(workspace) == ["a"]
        assert self.stored(SESSION) == {"files/a": b"3"}
        assert (await workspace.stat(read_path("a"))).etag == second.entry.etag

    async def test_of_many_that_create_one_does(self, workspaces: Workspaces) -> None:
        """Of concurrent writes that may only create, one succeeds, and its bytes are there."""
        workspace = workspaces.of(SESSION)
        tries = [put(workspace, "a", b"%d" % each, condition=Absent()) for each in range(20)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        won = [at for at, result in enumerate(results) if isinstance(result, Written)]
        assert len(won) == 1
        assert self.stored(SESSION) == {"files/a": b"%d" % won[0]}

    async def test_a_wrong_digest_is_refused(self, workspaces: Workspaces) -> None:
        """Bytes that are not those of the digest are not kept."""
        with pytest.raises(InvalidParams, match="Content-Digest"):
            await put(workspaces.of(SESSION), "a", b"1", sha256=bytes(32))
        assert self.stored(SESSION) == {}

    async def test_delete(self, workspaces: Workspaces) -> None:
        """A file goes; a directory only if all of it is meant; the session directory itself never."""
        workspace = workspaces.of(SESSION)
        for path in ("a", "d/e/f", "d/g"):
            await put(workspace, path, b"1")
        await workspace.delete(read_path("a"))
        with pytest.raises(InvalidParams, match="recursive"):
            await workspace.delete(read_path("d/"))
        with pytest.raises(InvalidParams, match="itself"):
            await workspace.delete(read_path(""), recursive=True)
        assert set(self.stored(SESSION)) == {"files/d/e/f", "files/d/g"}
        await workspace.delete(read_path("d"), recursive=True)
        assert self.stored(SESSION) == {}
        with pytest.raises(NotFound):
            await workspace.delete(read_path("a"))

    async def test_what_stands_in_the_way_is_told(self, workspaces: Workspaces) -> None:
        """A file is not written over a directory, nor below another file, nor by a directory's path."""
        workspace = workspaces.of(SESSION)
        await put(workspace, "d/f", b"1")
        for path, error in (
            ("d", Conflict),
            ("d/f/g", Conflict),
            ("d/", InvalidParams),
            (".dataproc/x", InvalidParams),
        ):
            with pytest.raises(error):
                await put(workspace, path, b"2")
        with pytest.raises(InvalidParams, match="directory"):
            await workspace.read(read_path("d"))
        assert self.stored(SESSION) == {"files/d/f": b"1"}

    async def test_listing(self, workspaces: Workspaces) -> None:
        """Sorted by name, a folder before what is in it, what is dataproc's own only when it is named."""
        workspace = workspaces.of(SESSION)
        for path in ("b", "a/z", "a/y", "a.b"):
            await put(workspace, path, b"1")
        async with workspace.checkout() as tree:
            (tree.files / ".dataproc").mkdir()
            (tree.files / ".dataproc" / "result").write_bytes(b"1")
        assert await names(workspace) == ["a", "a.b", "b"]
        assert await names(workspace, "a/") == ["a/y", "a/z"]
        assert await names(workspace, "", Selection(recursive=True)) == ["a", "a/y", "a/z", "a.b", "b"]
        assert await names(workspace, ".dataproc/") == [".dataproc/result"]
        with pytest.raises(NotFound):
            await names(workspace, "none/")

    async def test_discard_puts_all_out_of_reach(self, workspaces: Workspaces) -> None:
        """When `discard` returns, no path leads to the files; then nothing of the session is left."""
        workspace = workspaces.of(SESSION)
        await put(workspace, "a/b", b"1")
        async with workspace.checkout() as tree:
            pass
        await workspaces.discard(SESSION)
        assert not tree.files.exists()
        assert self.stored(SESSION) == {}
        await workspaces.settle()
        assert self.traces(SESSION) == []

    async def test_who_comes_after_discard_makes_nothing(self, workspaces: Workspaces) -> None:
        """A request that found its session alive, and comes when it is discarded, is told so."""
        held = workspaces.of(SESSION)
        async with held.checkout():
            pass
        await workspaces.discard(SESSION)
        for workspace in (held, workspaces.of(SESSION)):
            with pytest.raises(SessionEnded) as told:
                await put(workspace, "a", b"1")
            assert told.value.data["ended_at"].endswith("Z")
            with pytest.raises(SessionEnded):
                await names(workspace)
        await workspaces.settle()
        assert self.traces(SESSION) == []

    async def test_an_upload_that_discard_overtakes_is_not_acknowledged(self, workspaces: Workspaces) -> None:
        """A write whose session is discarded while its body arrives ends in an error, and leaves nothing."""

        async def overtaken() -> AsyncGenerator[bytes, None]:
            yield b"half"
            await workspaces.discard(SESSION)
            yield b"whole"

        async with aclosing(overtaken()) as chunks:
            with pytest.raises(DataprocError):
                await workspaces.of(SESSION).write(read_path("a"), chunks)
        await workspaces.settle()
        assert self.traces(SESSION) == []

    async def test_discard_of_nothing(self, workspaces: Workspaces) -> None:
        """A session that never had files is discarded as well."""
        await workspaces.discard(SESSION)
        await workspaces.discard(SESSION)
        await workspaces.settle()
        assert self.traces(SESSION) == []

    async def test_deletion_goes_on_after_a_crash(self, workspaces: Workspaces) -> None:
        """What a server did not get to delete, the next one deletes at its start."""
        dying = self.node()
        await put(dying.of(SESSION), "a/b", b"1")
        await dying.close()  # no deletion is done any more
        await dying.discard(SESSION)
        assert self.traces(SESSION) != []
        await workspaces.sweep()
        await workspaces.settle()
        assert self.traces(SESSION) == []

    async def test_sessions_do_not_meet(self, workspaces: Workspaces) -> None:
        """An id of a gateway and the same id of our own are two workspaces."""
        ours, theirs = workspaces.of("abcdefgh"), workspaces.of("gw-abcdefgh")
        await put(ours, "a", b"1")
        assert await names(theirs) == []
        await workspaces.discard("gw-abcdefgh")
        assert await names(ours) == ["a"]

    @pytest.mark.parametrize(
        "bad", ["", "short", "../../../etc", "a/bcdefgh", "abcdefgh\n", "abcdefgh.", "-abcdefgh", "ä" * 9, "a" * 200]
    )
    async def test_only_ids_select(self, workspaces: Workspaces, bad: str) -> None:
        """What is no session id is refused before any path is made of it."""
        with pytest.raises(InvalidParams):
            workspaces.of(bad)
        with pytest.raises(InvalidParams):
            await workspaces.discard(bad)

    async def test_application_folders(self, workspaces: Workspaces) -> None:
        """One folder for a key and a module, the same each time, and no way out of it by a name."""
        first = await workspaces.application("key-1", "tabular")
        (first / "kept").write_bytes(b"1")
        assert await workspaces.application("key-1", "tabular") == first
        assert (first / "kept").read_bytes() == b"1"
        assert (
            len({first, await workspaces.application("key-2", "tabular"), await workspaces.application("key-1", "x")})
            == 3
        )
        for key, module in (("..", "m"), ("k", ".."), ("k/x", "m"), ("k", ""), ("shared", "m"), ("k", "m\0")):
            with pytest.raises(InvalidParams):
                await workspaces.application(key, module)

    async def test_check(self, workspaces: Workspaces) -> None:
        """A storage that can be written to is fit."""
        await workspaces.check()


class TestLocal(WorkspaceContract):
    """Folders, used in place."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.root = tmp_path / "storage"

    def node(self, machine: str = "here") -> Workspaces:
        return open_workspaces(Settings(storage_url=str(self.root)))

    def stored(self, session_id: str) -> dict[str, bytes]:
        top = self.root / "sessions" / session_id[:2] / session_id
        files = [path for kept in ("files", "modules") for path in (top / kept).rglob("*")]
        return {str(path.relative_to(top)): path.read_bytes() for path in files if path.is_file()}

    def traces(self, session_id: str) -> list[str]:
        found = everything(self.root)
        return [path for path in found if session_id in path or "/trash/" in path]


class TestMemory(WorkspaceContract):
    """fsspec's memory:// store, with local copies."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> Iterator[None]:
        self.name = uuid.uuid4().hex
        self.cache = tmp_path
        self.fs = fsspec.filesystem("memory")
        self.ledger = Ledger()
        yield
        if self.fs.exists(f"/{self.name}"):
            self.fs.rm(f"/{self.name}", recursive=True)

    def node(self, machine: str = "here") -> Workspaces:
        return open_workspaces(
            Settings(
                storage_url=f"memory://{self.name}",
                database_url="sqlite://",
                cache_dir=self.cache / machine,
            ),
            leases=MemoryLeases(self.ledger, SystemClock(), 15),
        )

    def stored(self, session_id: str) -> dict[str, bytes]:
        row = self.ledger.rows.get(session_id)
        return {} if row is None else stored(self.fs, f"/{self.name}", session_id, row.revision)

    def traces(self, session_id: str) -> list[str]:
        found: list[str] = self.fs.find(f"/{self.name}")
        copies = everything(self.cache)
        return [path for path in found + copies if session_id in path or "/trash/" in path]


class TestS3(WorkspaceContract):
    """A bucket of a real server over HTTP, with local copies, and leases in a database."""

    @pytest.fixture(autouse=True)
    async def _place(self, tmp_path: Path, s3: S3) -> AsyncIterator[None]:
        self.s3, self.fs, self.bucket, self.cache = s3, s3.fs(), s3.bucket(), tmp_path
        self.database = await Database.open(f"sqlite:///{tmp_path}/leases.db", SystemClock())
        yield
        await self.database.close()

    def node(self, machine: str = "here") -> Workspaces:
        settings = Settings(
            storage_url=f"s3://{self.bucket}/a/prefix",
            database_url="sqlite://",
            cache_dir=self.cache / machine,
            **self.s3.settings(),  # type: ignore[arg-type]
        )
        return open_workspaces(settings, leases=DatabaseLeases(self.database, 15, machine, None))

    def stored(self, session_id: str) -> dict[str, bytes]:
        with closing(sqlite3.connect(self.cache / "leases.db")) as ledger:
            row = ledger.execute("SELECT revision FROM leases WHERE session_id = ?", [session_id]).fetchone()
        return {} if row is None else stored(self.fs, f"{self.bucket}/a/prefix", session_id, row[0])

    def traces(self, session_id: str) -> list[str]:
        found: list[str] = self.fs.find(self.bucket)
        copies = everything(self.cache)
        return [path for path in found + copies if session_id in path or "/trash/" in path]


def stored(fs: Any, root: str, session_id: str, revision: str | None) -> dict[str, bytes]:
    """The files of a revision, as its index says."""
    if revision is None:
        return {}
    index = f"{root}/sessions/{session_id[:2]}/{session_id}/.rev/{revision}/index.json"
    found = {}
    for path, kept in Index.loads(fs.cat_file(index)).entries.items():
        if isinstance(kept, KeptFile):
            found[path] = fs.cat_file(f"{root}/{kept.key}")
            assert kept.sha256 in ("", hashlib.sha256(found[path]).hexdigest())
    return found
