"""What storage promises where the process, or the disk, gives up."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dataproc.clock import SystemClock
from dataproc.errors import StorageUnavailable
from dataproc.settings import Settings
from dataproc.storage import Workspaces, open_workspaces
from dataproc.storage.object_store.leases import Ledger, MemoryLeases
from dataproc.storage.paths import read_path

SESSION = "5e551011-0000-4000-8000-000000000001"
SIZE = 300_000

# writes a/0, a/1 … over and over, each filled with its own digest, and tells each one that was acknowledged
WRITER = f"""
import asyncio, hashlib, sys
from dataproc.settings import Settings
from dataproc.storage import open_workspaces
from dataproc.storage.paths import read_path

async def chunks(data):
    yield data[:100_000]
    yield data[100_000:]

async def main():
    workspace = open_workspaces(Settings(storage_url=sys.argv[1])).of("{SESSION}")
    count = 0
    while True:
        data = hashlib.shake_128(b"%d" % count).digest({SIZE})
        await workspace.write(read_path(f"a/{{count % 7}}"), chunks(data))
        print(count, flush=True)
        count += 1

asyncio.run(main())
"""


@pytest.fixture
async def workspaces(tmp_path: Path) -> AsyncIterator[Workspaces]:
    """A local storage."""
    made = open_workspaces(Settings(storage_url=str(tmp_path / "storage")))
    yield made
    await made.close()


def writer_killed_after(acknowledged: int, storage: Path) -> list[int]:
    """What a writer acknowledged until, and while, it was killed."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(storage)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(acknowledged)]
        process.kill()
        return told + [int(line) for line in process.stdout if line.endswith("\n")]


@pytest.mark.parametrize("acknowledged", [1, 8, 40])
async def test_kill_9_loses_no_acknowledged_file(workspaces: Workspaces, tmp_path: Path, acknowledged: int) -> None:
    """After a kill at any moment every file is whole, is the one acknowledged last or a later one; leftovers go."""
    told = writer_killed_after(acknowledged, tmp_path / "storage")
    await workspaces.sweep()
    await workspaces.settle()
    async with workspaces.of(SESSION).checkout() as tree:
        assert list(tree.incoming.iterdir()) == []
        for slot in {count % 7 for count in told}:
            last = max(count for count in told if count % 7 == slot)
            whole = [hashlib.shake_128(b"%d" % count).digest(SIZE) for count in (last, last + 7)]
            assert (tree.files / "a" / str(slot)).read_bytes() in whole


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of one MiB."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", folder], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            pytest.skip("mounting takes root")
        yield Path(folder)
        subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_is_told_and_cleaned_up(small_disk: Path) -> None:
    """An upload that fills the disk ends in an error that says so, leaves nothing, and the next one that fits works."""
    workspaces = open_workspaces(Settings(storage_url=str(small_disk / "storage")))
    workspace = workspaces.of(SESSION)

    async def much() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(2**18)

    async def little() -> AsyncIterator[bytes]:
        yield b"fits"

    with pytest.raises(StorageUnavailable, match="full") as refused:
        await workspace.write(read_path("a"), much())
    assert refused.value.data == {"reason": "disk_full"}
    await workspace.write(read_path("a"), little())
    async with workspace.checkout() as tree:
        assert [os.listdir(tree.incoming), os.listdir(tree.files)] == [[], ["a"]]
    await workspaces.discard(SESSION)
    await workspaces.close()


async def test_a_storage_that_cannot_be_written_to_is_not_fit(tmp_path: Path) -> None:
    """The check for readiness fails where the folder is gone."""
    workspaces = open_workspaces(Settings(storage_url=str(tmp_path / "storage")))
    (tmp_path / "storage" / "trash").rmdir()
    with pytest.raises(StorageUnavailable):
        await workspaces.check()
    await workspaces.close()


async def test_fsync_is_a_setting(tmp_path: Path) -> None:
    """With `fsync` set, what was put or written by a run is flushed before the block ends; the rest is as before."""
    workspaces = open_workspaces(Settings(storage_url=str(tmp_path / "storage"), fsync=True))

    async def chunks() -> AsyncIterator[bytes]:
        yield b"1"

    await workspaces.of(SESSION).write(read_path("a/b/c"), chunks())
    async with workspaces.of(SESSION).checkout() as tree:
        assert (tree.files / "a/b/c").read_bytes() == b"1"
    await workspaces.close()


async def test_a_disk_that_fills_during_a_fetch(small_disk: Path, tmp_path: Path) -> None:
    """A session that does not fit is not there in part: the caller is told why, and when there is room it is whole."""
    ledger, name = Ledger(), uuid.uuid4().hex

    def node(folder: Path) -> Workspaces:
        settings = Settings(storage_url=f"memory://{name}", database_url="sqlite://", cache_dir=folder)
        return open_workspaces(settings, leases=MemoryLeases(ledger, SystemClock(), 15))

    here, there = node(tmp_path), node(small_disk)
    data = {str(number): bytes([number]) * 300_000 for number in range(6)}
    async with here.of(SESSION).checkout() as tree:
        for path, content in data.items():
            (tree.files / path).write_bytes(content)
    await here.close()
    with pytest.raises(StorageUnavailable, match="full") as refused:
        await there.bring(SESSION)
    assert refused.value.data == {"reason": "disk_full"}
    assert there.known(SESSION) is None
    await asyncio.to_thread(subprocess.check_call, ["mount", "-o", "remount,size=8m", small_disk])
    async with there.of(SESSION).checkout() as tree:
        assert {path.name: path.read_bytes() for path in tree.files.iterdir()} == data
    await there.close()
