"""Application folders of several servers on one store: file by file, the last writer wins."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import fsspec
import pytest

from dataproc.clock import ManualClock
from dataproc.settings import Settings
from dataproc.storage import Workspaces, open_workspaces
from dataproc.storage.object_store.applications import FRESH, STALE
from dataproc.storage.object_store.leases import Ledger, MemoryLeases
from tests.s3 import S3

OF = ("key-1", "tabular")


class Servers:
    """Two servers, each with a session of its own and the folder of the same key and module."""

    def __init__(self, folder: Path, chosen: dict[str, object]) -> None:
        self.clock, ledger = ManualClock(), Ledger()
        self.nodes: dict[str, Workspaces] = {}
        for name in ("one", "two"):
            settings = Settings(database_url="sqlite://", cache_dir=folder / name, **chosen)  # type: ignore[arg-type]
            self.nodes[name] = open_workspaces(settings, self.clock, MemoryLeases(ledger, self.clock, 15, name))

    @asynccontextmanager
    async def run(self, name: str) -> AsyncIterator[Path]:
        """A run on one of them, in the application's folder."""
        node = self.nodes[name]
        await node.application(*OF)
        async with node.of(f"5e551011-0000-4000-8000-{name:0>12}".replace("o", "0")).checkout(OF):
            yield await node.application(*OF)

    async def seen(self, name: str) -> dict[str, bytes]:
        """What a run finds, after a pause."""
        self.clock.advance(STALE)
        async with self.run(name) as folder:
            return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["memory", "s3"])
async def servers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Servers]:
    if request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        chosen: dict[str, object] = {"storage_url": f"s3://{s3.bucket()}/p", **s3.settings()}
    else:
        chosen = {"storage_url": f"memory://{uuid.uuid4().hex}"}
    made = Servers(tmp_path, chosen)
    yield made
    for node in made.nodes.values():
        await node.close()
    if request.param == "memory":
        with suppress(FileNotFoundError):
            fsspec.filesystem("memory").rm("/" + str(chosen["storage_url"]).removeprefix("memory://"), recursive=True)


async def until(happens: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happens():  # noqa: ASYNC110 - on a disk, which tells nobody
            await asyncio.sleep(0.01)


async def test_later_writes_of_others_arrive(servers: Servers) -> None:
    """New files, changed ones and those that are gone are seen by runs of another server that had the folder."""
    async with servers.run("one") as folder:
        (folder / "changed").write_bytes(b"1")
        (folder / "gone").write_bytes(b"1")
        (folder / "kept").write_bytes(b"1")
    assert await servers.seen("two") == {"changed": b"1", "gone": b"1", "kept": b"1"}
    async with servers.run("one") as folder:
        (folder / "changed").write_bytes(b"2")
        (folder / "gone").unlink()
        (folder / "d" / "e").mkdir(parents=True)
        (folder / "d" / "e" / "new").write_bytes(b"2")
    expected = {"changed": b"2", "kept": b"1", "d/e/new": b"2"}
    assert await servers.seen("two") == expected
    assert await servers.seen("one") == expected


async def test_it_goes_to_and_fro(servers: Servers) -> None:
    """Each server's changes reach the other, and what is its own it does not fetch back over later changes."""
    for turn in range(3):
        for name in ("one", "two"):
            servers.clock.advance(STALE)
            async with servers.run(name) as folder:
                before = contents(folder).get("count", b"")
                assert len(before) == 2 * turn + (name == "two")
                (folder / "count").write_bytes(before + b"x")


async def test_within_seconds_nobody_asks(servers: Servers) -> None:
    """A run soon after another finds what is here, without a question to the store."""
    await servers.seen("two")
    async with servers.run("one") as folder:
        (folder / "a").write_bytes(b"1")
    servers.clock.advance(FRESH / 2)
    async with servers.run("two") as folder:
        assert contents(folder) == {}


async def test_a_run_soon_after_does_not_wait(servers: Servers) -> None:
    """Some seconds later the look is in the background, and what it found comes when nobody is at work there."""
    await servers.seen("two")
    async with servers.run("one") as folder:
        (folder / "a").write_bytes(b"1")
    servers.clock.advance(FRESH)
    async with servers.run("two") as folder:
        pass
    await until(lambda: contents(folder) == {"a": b"1"})


async def test_what_was_changed_here_stays(servers: Servers) -> None:
    """A file that was changed here, and is not in the store yet, is not replaced: it is put, and is the last."""
    async with servers.run("one") as folder:
        (folder / "a").write_bytes(b"first")
    await servers.seen("two")
    (folder / "a").write_bytes(b"of an idle worker")
    async with servers.run("two") as other:
        (other / "a").write_bytes(b"theirs")
    assert await servers.seen("one") == {"a": b"of an idle worker"}
    assert await servers.seen("two") == {"a": b"of an idle worker"}


async def test_nothing_is_replaced_under_a_run(servers: Servers) -> None:
    """A file that a run has open keeps its name while the run lasts, and what it writes is put."""
    async with servers.run("one") as folder:
        (folder / "a").write_bytes(b"first")
    await servers.seen("two")
    async with servers.run("one") as folder:
        with (folder / "a").open("r+b") as file:
            async with servers.run("two") as other:
                (other / "a").write_bytes(b"theirs")
            servers.clock.advance(STALE)
            async with servers.run("one"):
                pass
            file.write(b"LAST!")
    assert await servers.seen("one") == {"a": b"LAST!"}
    assert await servers.seen("two") == {"a": b"LAST!"}


async def test_a_file_here_is_a_folder_there(servers: Servers) -> None:
    """What does not go together is left as it is, and the rest arrives."""
    async with servers.run("one") as folder:
        (folder / "z").write_bytes(b"1")
    await servers.seen("two")
    (folder / "x").write_bytes(b"a file, not put yet")
    async with servers.run("two") as other:
        (other / "x").mkdir()
        (other / "x" / "y").write_bytes(b"2")
        (other / "z").write_bytes(b"2")
    assert await servers.seen("one") == {"x": b"a file, not put yet", "z": b"2"}
    assert (await servers.seen("two"))["z"] == b"2"
