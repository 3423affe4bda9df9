"""Copies of an earlier life, and of sessions that were lost: what they may be used for, and what not."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest

from dataproc.clock import ManualClock
from dataproc.settings import Settings
from dataproc.storage import Tree, Workspaces, open_workspaces
from dataproc.storage.object_store.earlier import LIFE
from dataproc.storage.object_store.leases import Ledger, MemoryLeases

SESSION = "5e551011-0000-4000-8000-000000000001"
OTHER = "5e551011-0000-4000-8000-000000000002"
LARGE = os.urandom(9 * 2**20)


class Machine:
    """Lives of one server after another, in one folder, and how many bytes of files each was sent."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name, self.ledger, self.clock = folder, uuid.uuid4().hex, Ledger(), ManualClock()
        self.fs = fsspec.filesystem("memory")
        self.lives: list[Workspaces] = []
        self.sent = 0

    async def life(self, machine: str = "one", **chosen: object) -> Workspaces:
        """The next one; the one before was killed, and its leases have run out."""
        self.clock.advance(16)
        settings = Settings(
            storage_url=f"memory://{self.name}", database_url="sqlite://", cache_dir=self.folder / machine,
            **chosen,  # type: ignore[arg-type]
        )  # fmt: skip
        made = open_workspaces(settings, self.clock, MemoryLeases(self.ledger, self.clock, 15, machine))
        await made.sweep()
        self.lives.append(made)
        self.sent = 0
        return made


@pytest.fixture
async def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    made = Machine(tmp_path)
    cat = type(made.fs).cat_file

    def counted(fs: object, path: str, *args: object, **kwargs: object) -> bytes:
        data: bytes = cat(fs, path, *args, **kwargs)
        made.sent += len(data) if not path.endswith("index.json") else 0
        return data

    monkeypatch.setattr(type(made.fs), "cat_file", counted)
    yield made
    for life in made.lives:
        await life.close()
    with suppress(FileNotFoundError):
        made.fs.rm(f"/{made.name}", recursive=True)


async def filled(node: Workspaces) -> Tree:
    """A session with files of all kinds, committed."""
    async with node.of(SESSION).checkout() as tree:
        (tree.files / "d").mkdir()
        (tree.files / "d" / "small").write_bytes(b"small")
        (tree.files / "large").write_bytes(LARGE)
        (tree.files / "empty").write_bytes(b"")
        (tree.files / "changed").write_bytes(b"committed")
        (tree.files / "gone").write_bytes(b"committed too")
        (tree.files / "mode").write_bytes(b"m")
        (tree.files / "mode").chmod(0o640)
    return tree


def contents(tree: Tree) -> dict[str, bytes]:
    return {str(path.relative_to(tree.files)): path.read_bytes() for path in tree.files.rglob("*") if path.is_file()}


async def test_what_is_here_is_not_sent_again(machine: Machine) -> None:
    """After a restart the session is as it was committed, and no byte of a file comes from the store."""
    before = contents(await filled(await machine.life()))
    again = await machine.life()
    async with again.of(SESSION).checkout() as tree:
        assert contents(tree) == before
        assert (tree.files / "mode").stat().st_mode & 0o777 == 0o640
    assert machine.sent == 0


async def test_what_was_not_committed_is_not_believed(machine: Machine) -> None:
    """Changed bytes of the same size and times, files that are new or gone, links: all is as it was committed."""
    tree = await filled(await machine.life())
    before, seen = contents(tree), (tree.files / "changed").stat()
    (tree.files / "changed").write_bytes(b"COMMITTED")
    os.utime(tree.files / "changed", ns=(seen.st_atime_ns, seen.st_mtime_ns))
    with (tree.files / "large").open("r+b") as file:
        file.seek(LARGE.__len__() - 1)
        file.write(bytes([LARGE[-1] ^ 1]))
    (tree.files / "new").write_bytes(b"uncommitted")
    (tree.files / "gone").unlink()
    (tree.files / "d" / "small").unlink()
    (tree.files / "d" / "small").symlink_to("/etc/hostname")
    again = await machine.life()
    async with again.of(SESSION).checkout() as tree:
        assert contents(tree) == before
        assert not (tree.files / "d" / "small").is_symlink()
    assert machine.sent == sum(len(before[name]) for name in ("changed", "large", "gone", "d/small"))


async def test_a_process_of_the_earlier_life_writes_to_nothing_that_counts(machine: Machine) -> None:
    """Who has a file of the earlier copy open does not have the new one open."""
    tree = await filled(await machine.life())
    with (tree.files / "changed").open("r+b") as lingering:
        async with (await machine.life()).of(SESSION).checkout() as tree:
            lingering.write(b"too late!")
            lingering.flush()
            assert (tree.files / "changed").read_bytes() == b"committed"


async def test_a_fifo_in_an_earlier_copy_holds_nobody_up(machine: Machine) -> None:
    """What is no regular file is no source."""
    tree = await filled(await machine.life())
    (tree.files / "changed").unlink()
    os.mkfifo(tree.files / "changed")
    async with (await machine.life()).of(SESSION).checkout() as tree:
        assert (tree.files / "changed").read_bytes() == b"committed"


async def test_a_session_that_was_away_and_comes_back(machine: Machine) -> None:
    """What another node did not change meanwhile is not sent again."""
    here = await machine.life()
    await filled(here)
    there = await machine.life("two")
    async with there.of(SESSION).checkout() as tree:
        (tree.files / "changed").write_bytes(b"elsewhere")
    machine.clock.advance(16)
    machine.sent = 0
    async with here.of(SESSION).checkout() as tree:
        assert (tree.files / "changed").read_bytes() == b"elsewhere"
        assert (tree.files / "large").read_bytes() == LARGE
    assert machine.sent == len(b"elsewhere")


async def test_two_restarts_in_a_row(machine: Machine) -> None:
    """A life that used nothing does not cost what the one before it had."""
    await filled(await machine.life())
    await machine.life()
    async with (await machine.life()).of(SESSION).checkout():
        assert machine.sent == 0


@pytest.mark.parametrize("why", ["old", "large", "deleted"])
async def test_they_go(machine: Machine, why: str) -> None:
    """Earlier copies leave the disk when they are old, when there is no room, and with their session."""
    await filled(await machine.life())
    again = await machine.life(copies_size=1000 if why == "large" else 2**30)
    (place,) = _aside(machine)
    house = again._backend._house  # type: ignore[attr-defined]
    await house._make_room()
    assert place.exists() == (why != "large")
    if why == "old":
        machine.clock.advance(LIFE + 1)
        await house._make_room()
    elif why == "deleted":
        await again.discard(SESSION)
    await again.settle()
    assert not list(_aside(machine))
    assert not place.exists()


def _aside(machine: Machine) -> Iterator[Path]:
    return (machine.folder / "one").glob("copies/*/earlier/*")
