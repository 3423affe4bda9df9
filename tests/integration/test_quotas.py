"""Use kept up by watching, against what is really on the disk."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dataproc.errors import QuotaExceeded
from dataproc.storage import Changes, Tree, Usage
from dataproc.storage.folders import Folders
from dataproc.storage.usage import inotify
from dataproc.storage.usage.limits import Limits, Watched
from dataproc.storage.usage.observing import Observed, Room
from dataproc.storage.usage.quotas import Quotas
from dataproc.storage.usage.watch import TOPS, taken

SESSION = "5e551011-0000-4000-8000-000000000001"
LIMITS = Limits(100_000, 50, None, None, 0, 600.0)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    folders = Folders(tmp_path / "storage", None, False)
    yield folders.make(SESSION)
    folders.trash.close()


@pytest.fixture
async def quotas(tmp_path: Path) -> AsyncIterator[Quotas]:
    made = Quotas(LIMITS, tmp_path)
    yield made
    await made.close()


def walked(tree: Tree) -> Usage:
    """What is on the disk."""
    sizes, files = 0, 0
    for top in TOPS:
        for folder, below, names in os.walk(tree.files.parent / top):
            files += len(below) + len(names)
            sizes += sum(taken(os.lstat(os.path.join(folder, name))) for name in names)
    return Usage(sizes, files)


@asynccontextmanager
async def observing(quotas: Quotas, tree: Tree) -> AsyncIterator[tuple[Watched, Observed]]:
    watched = await quotas.watch(SESSION, tree, "key")
    async with Observed(quotas, watched) as observed:
        yield watched, observed


async def test_what_was_there_is_counted(quotas: Quotas, tree: Tree) -> None:
    """The first look finds what lies in all three folders."""
    (tree.files / "a" / "b").mkdir(parents=True)
    (tree.files / "a" / "b" / "c").write_bytes(b"123")
    (tree.modules / "m").write_bytes(b"12345")
    (tree.locks / "l").touch()
    assert await quotas.usage(SESSION, tree) == Usage(8, 5)


async def test_a_deep_nest_takes_no_more_memory_than_a_flat_one(quotas: Quotas, tree: Tree) -> None:
    """What is remembered of a directory does not grow with its depth, or a run could fill the server's memory."""
    end = tree.files / "/".join("d" * 900)
    end.mkdir(parents=True)
    for number in range(500):
        (end / str(number)).mkdir()
    tracemalloc.start()
    try:
        assert (await quotas.usage(SESSION, tree)).files == 1400
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1400 * 1000
    assert most < 1400 * 2000


async def test_a_session_without_a_folder_takes_nothing(quotas: Quotas, tmp_path: Path) -> None:
    """To ask what a session takes makes no folder, and whoever makes one later is watched."""
    folders = Folders(tmp_path / "other", None, False)
    tree = folders.tree(SESSION)
    assert await quotas.usage(SESSION, tree) == Usage()
    assert not tree.files.exists()
    folders.make(SESSION)
    (tree.files / "a").write_bytes(b"1")
    assert await quotas.usage(SESSION, tree) == Usage(1, 1)
    folders.trash.close()


@pytest.mark.parametrize("seed", range(6))
async def test_any_order_of_changes_is_followed(quotas: Quotas, tree: Tree, seed: int) -> None:
    """Whatever is written, moved and deleted, in old and in new directories, use is what a walk would find."""
    chance = random.Random(seed)
    await quotas.watch(SESSION, tree, "key")

    def place() -> Path:
        return tree.files.joinpath(*(chance.choice("abc") for _ in range(chance.randint(1, 4))))

    def write() -> None:
        there = place()
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(bytes(chance.randint(0, 9000)))

    def move() -> None:
        os.rename(place(), place())

    def delete() -> None:
        there = place()
        shutil.rmtree(there) if there.is_dir() else there.unlink()

    for count in range(400):
        try:
            chance.choice((write, write, write, move, delete))()
        except OSError:
            continue
        if not count % 7:
            assert await quotas.usage(SESSION, tree) == walked(tree)
    assert await quotas.usage(SESSION, tree) == walked(tree)


async def test_changes_of_a_run(quotas: Quotas, tree: Tree) -> None:
    """What came, was written to, and went, between the begin and the end; what came and went is not told."""
    for name in ("kept", "changed", "replaced", "gone"):
        (tree.files / name).write_bytes(b"1")
    (tree.files / "old").mkdir()
    (tree.files / "old" / "x").write_bytes(b"1")
    async with observing(quotas, tree) as (_, observed):
        (tree.files / "changed").write_bytes(b"2")
        (tree.files / "beside").write_bytes(b"3")
        (tree.files / "beside").rename(tree.files / "replaced")
        (tree.files / "gone").unlink()
        (tree.files / "new" / "deep").mkdir(parents=True)
        (tree.files / "new" / "deep" / "y").write_bytes(b"4")
        (tree.files / "old").rename(tree.files / "moved")
        (tree.files / "passing").touch()
        (tree.files / "passing").unlink()
        (tree.modules / "state").touch()
        changes, exceeded = await observed.end()
    assert changes == Changes(("moved/x", "new/deep/y"), ("changed", "replaced"), ("gone", "old/x"))
    assert exceeded is None


async def test_runs_side_by_side(quotas: Quotas, tree: Tree) -> None:
    """Each run is told what changed since its own begin."""
    async with observing(quotas, tree) as (_, first):
        (tree.files / "a").touch()
        async with observing(quotas, tree) as (_, second):
            (tree.files / "a").write_bytes(b"1")
            (tree.files / "b").touch()
            assert (await second.end())[0] == Changes(("b",), ("a",))
        assert (await first.end())[0] == Changes(("a", "b"))


async def test_lost_events_are_made_up_for(quotas: Quotas, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel's queue ran over, one walk finds what is there; what came and went is told too."""
    (tree.files / "gone").write_bytes(b"1")
    async with observing(quotas, tree) as (_, observed):
        (tree.files / "gone").unlink()
        (tree.files / "d").mkdir()
        (tree.files / "d" / "new").write_bytes(b"12")
        read = quotas._queue.read
        lost = [(-1, inotify.OVERFLOW, "")]
        monkeypatch.setattr(quotas._queue, "read", lambda: lost if read() else [])
        changes, _ = await observed.end()
    assert changes == Changes(("d/new",), (), ("gone",))
    assert await quotas.usage(SESSION, tree) == walked(tree)


async def test_without_watches_it_walks(quotas: Quotas, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user may have no more watches, use is found by walking."""

    def refuse(folder: int) -> int:
        raise OSError(28, "no more watches")

    monkeypatch.setattr(quotas._queue, "add", refuse)
    watched = await quotas.watch(SESSION, tree, "key")
    (tree.files / "a").write_bytes(b"12")
    watched.watch._again = 0.0
    assert await quotas.usage(SESSION, tree) == Usage(2, 1)


async def test_growth_above_a_quota_is_told_once(quotas: Quotas, tree: Tree) -> None:
    """Who is above a quota is told so when that grows; not for staying there, and not for shrinking."""
    async with observing(quotas, tree) as (watched, observed):
        (tree.files / "a").write_bytes(bytes(100_001))
        _, exceeded = await observed.end()
        assert exceeded is not None
        assert exceeded.data == {"quota": "session_bytes", "limit": 100_000, "used": 100_001}
        assert quotas.exceeded(watched) is None
    async with observing(quotas, tree) as (_, observed):
        os.truncate(tree.files / "a", 100_000 + 1 - 1)
        assert (await observed.end())[1] is None
    async with observing(quotas, tree) as (_, observed):
        (tree.files / "b").write_bytes(b"1")
        exceeded = (await observed.end())[1]
        assert exceeded is not None


async def test_uploads_at_once_share_the_room(quotas: Quotas, tree: Tree) -> None:
    """What uploads under way have taken counts, and is given back when they end."""
    watched = await quotas.watch(SESSION, tree, "key")

    async def body(size: int) -> AsyncIterator[bytes]:
        yield bytes(size)

    async with Room(quotas, watched, 0, 1) as one:
        assert [len(piece) async for piece in one.kept(body(60_000))] == [60_000]
        async with Room(quotas, watched, 0, 1) as other:
            with pytest.raises(QuotaExceeded):
                other.require(50_000)
            with pytest.raises(QuotaExceeded):
                [piece async for piece in other.kept(body(50_000))]
    async with Room(quotas, watched, 0, 1) as last:
        last.require(50_000)
    assert watched.reserved == 0


async def test_the_disk_keeps_some_room(tmp_path: Path, tree: Tree) -> None:
    """Below the floor of free space, the run that grows most is ended."""
    quotas = Quotas(Limits(2**40, 10**6, None, None, 2**60, 600.0), tmp_path)
    ended: dict[str, QuotaExceeded] = {}
    over = asyncio.Event()

    def on_over(session: str, error: QuotaExceeded) -> None:
        ended[session] = error
        over.set()

    quotas.on_over = on_over
    keeping = asyncio.create_task(quotas.keep())
    async with observing(quotas, tree):
        (tree.files / "a").write_bytes(bytes(10_000))
        await asyncio.wait_for(over.wait(), 30)
    keeping.cancel()
    assert ended[SESSION].data["quota"] == "free_space"
    await quotas.close()


async def test_word_of_too_much_reaches_a_run_that_is_just_returning(quotas: Quotas, tree: Tree) -> None:
    """A run whose growth was judged by the looks in between is refused, though it returned before it could be ended."""
    over = asyncio.Event()
    quotas.on_over = lambda session, error: over.set()  # its outcome is on the way: there is nothing left to end
    keeping = asyncio.create_task(quotas.keep())
    async with observing(quotas, tree) as (_, observed):
        (tree.files / "a").write_bytes(bytes(100_001))
        await asyncio.wait_for(over.wait(), 30)
        _, exceeded = await observed.end()
    assert exceeded is not None
    assert exceeded.data["quota"] == "session_bytes"
    async with observing(quotas, tree) as (_, observed):
        assert (await observed.end())[1] is None  # the next one did nothing
    keeping.cancel()


async def test_sessions_that_rest_are_watched_no_longer(tmp_path: Path, tree: Tree) -> None:
    """After its idle time a session's watches are given back, and made anew at its next use."""
    quotas = Quotas(Limits(100, 100, None, None, 0, 0.0), tmp_path)
    first = await quotas.watch(SESSION, tree, "key")
    await quotas.watch("another", tree, "key")
    (tree.files / "a").touch()
    again = await quotas.watch(SESSION, tree, "key")
    assert again is not first
    assert again.watch.usage == Usage(0, 1)
    await quotas.close()


async def test_many_first_looks_at_once(quotas: Quotas, tmp_path: Path) -> None:
    """Sessions that come under watch at the same time do not take each other for idle."""
    names = [f"session-{number:04}" for number in range(40)]
    trees = []
    for name in names:
        made = Tree(*(tmp_path / name / part for part in ("files", "modules", "locks")))
        for folder in (made.files, made.modules, made.locks):
            folder.mkdir(parents=True)
        trees.append(made)
    found = await asyncio.gather(*(quotas.watch(name, tree, "key") for name, tree in zip(names, trees, strict=True)))
    assert [each.session for each in found] == names
