"""Object storage commits what was changed, and looks at nothing else: attacks on what tells it where to look."""

from __future__ import annotations

import asyncio
import hashlib
import json
import mmap
import os
import random
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from dataproc.clock import SystemClock
from dataproc.errors import StorageUnavailable
from dataproc.settings import Settings
from dataproc.storage import Tree, Workspaces, open_workspaces
from dataproc.storage.object_store import index, survey
from dataproc.storage.object_store.leases import Ledger, MemoryLeases
from dataproc.storage.paths import read_path
from dataproc.storage.usage import inotify

SESSION = "5e551011-0000-4000-8000-000000000001"


class Node:
    """A server on a store in memory, and what the store has of the session."""

    def __init__(self, folder: Path, name: str = "", ledger: Ledger | None = None) -> None:
        self.name, self.ledger = name or uuid.uuid4().hex, ledger or Ledger()
        self.fs = fsspec.filesystem("memory")
        self.walks = 0
        settings = Settings(storage_url=f"memory://{self.name}", database_url="sqlite://", cache_dir=folder)
        self.workspaces: Workspaces = open_workspaces(
            settings, SystemClock(), MemoryLeases(self.ledger, SystemClock(), 15, "node")
        )
        self.workspaces.quotas.workers = lambda session: [os.getpid()]

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Tree]:
        """As the executor has it."""
        async with (
            self.workspaces.of(SESSION).checkout() as tree,
            await self.workspaces.observe(SESSION, "key", tree) as seen,
        ):
            yield tree
            await seen.end()

    def kept(self) -> dict[str, tuple[object, ...]]:
        """What the current revision has: mode and digest of files, mode of folders, text of links."""
        revision = self.ledger.rows[SESSION].revision
        top = f"/{self.name}/sessions/{SESSION[:2]}/{SESSION}/.rev"
        told = json.loads(self.fs.cat_file(f"{top}/{revision}/index.json"))
        if "base" in told:
            entries = json.loads(self.fs.cat_file(f"{top}/{told['base']}/index.json"))["entries"] | told["changed"]
            told["entries"] = {path: entry for path, entry in entries.items() if path not in told["gone"]}
        found: dict[str, tuple[object, ...]] = {}
        for path, entry in told["entries"].items():
            if entry["kind"] == "file":
                digest = hashlib.sha256(self.fs.cat_file("/" + f"{self.name}/{entry['key']}")).hexdigest()
                found[path] = (entry["mode"], entry["modified"], digest)
            else:
                found[path] = (entry.get("mode"), entry.get("target"))
        return found


def on_disk(tree: Tree) -> dict[str, tuple[object, ...]]:
    """The same, of the folders."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [*tree.files.rglob("*"), *tree.modules.rglob("*")]:
        name, seen = str(path.relative_to(tree.files.parent)), path.lstat()
        if path.is_symlink():
            found[name] = (None, os.readlink(path))
        elif path.is_dir():
            found[name] = (seen.st_mode & 0o777, None)
        else:
            found[name] = (seen.st_mode & 0o777, seen.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
    return found


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    """A session with some files that one run has left, and that were not touched since."""
    made = Node(tmp_path)
    async with made.run() as tree:
        (tree.files / "d" / "e").mkdir(parents=True)
        for name in ("a", "b", "d/c", "d/e/f"):
            (tree.files / name).write_bytes(name.encode() * 100)
        (tree.files / "empty").mkdir()
        (tree.files / "link").symlink_to("a")
    scan = index.scan

    def counted(*args: object, **kwargs: object) -> Iterator[object]:
        made.walks += not kwargs.get("within")
        return scan(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(survey, "scan", counted)
    yield made
    await made.workspaces.close()
    with suppress(FileNotFoundError):
        made.fs.rm(f"/{made.name}", recursive=True)


async def test_nothing_touched_nothing_walked(node: Node) -> None:
    """A run that only reads costs no walk, and puts nothing."""
    before = node.fs.find(f"/{node.name}/sessions")
    for _ in range(3):
        async with node.run() as tree:
            assert (tree.files / "link").read_bytes() == b"a" * 100
    assert node.walks == 0
    await node.workspaces.settle()
    assert {path for path in node.fs.find(f"/{node.name}/sessions") if "/.rev/" in path} <= set(before)


async def test_what_was_touched_is_kept_without_a_walk(node: Node) -> None:
    """Of everything that a run can do to files, the revision shows what is on the disk."""
    async with node.run() as tree:
        (tree.files / "a").write_bytes(b"changed")
        (tree.files / "b").unlink()
        (tree.files / "d" / "c").rename(tree.files / "d" / "e" / "moved")
        (tree.files / "d" / "e").rename(tree.files / "e")
        (tree.files / "empty").rmdir()
        (tree.files / "new" / "empty").mkdir(parents=True)
        (tree.files / "link").unlink()
        (tree.files / "link").symlink_to("e")
        (tree.modules / "m").mkdir()
        (tree.modules / "m" / "state").write_bytes(b"1")
    assert node.walks == 0
    assert node.kept() == on_disk(tree)


@pytest.mark.parametrize("where", ["a", "d/e/f", "d", "empty"])
async def test_modes_and_times_alone_travel(node: Node, where: str) -> None:
    """A changed mode, or time, of a file or folder is kept."""
    async with node.run() as tree:
        (tree.files / where).chmod(0o741)
    assert node.kept() == on_disk(tree)
    async with node.run() as tree:
        os.utime(tree.files / where, ns=(1, 2))
    assert node.kept() == on_disk(tree)
    assert node.walks == 0


async def test_a_folder_becomes_a_file_a_file_a_link_a_link_a_folder(node: Node) -> None:
    """What was below a folder that is none any more goes; what a link leads to is not kept twice."""
    async with node.run() as tree:
        shutil.rmtree(tree.files / "d")
        (tree.files / "d").write_bytes(b"1")
        (tree.files / "a").unlink()
        (tree.files / "a").symlink_to("empty")
        (tree.files / "empty" / "x").write_bytes(b"2")
        (tree.files / "a" / "y").write_bytes(b"3")
        (tree.files / "link").unlink()
        (tree.files / "link").mkdir()
    assert node.kept() == on_disk(tree)


async def test_writes_between_runs_go_with_the_next(node: Node) -> None:
    """What a thread of an idle worker writes is kept by the next commit, though its run touched nothing."""
    async with node.run() as tree:
        pass
    (tree.files / "a").write_bytes(b"between")
    async with node.run():
        pass
    assert node.kept() == on_disk(tree)


async def test_a_mapping_that_outlives_its_run(node: Node) -> None:
    """Each commit reads what is mapped: writes to a page that was written to before change nothing else that shows."""
    file = os.open(node.workspaces.folders.tree(SESSION).files / "a", os.O_RDWR)
    mapped = mmap.mmap(file, 100)
    os.close(file)
    for value in (b"1", b"2", b"3"):
        async with node.run():
            mapped[:1] = value
        assert node.kept()["files/a"][2] == hashlib.sha256(value + b"a" * 99).hexdigest()
    mapped[:1] = b"4"
    mapped.close()
    async with node.run():
        pass
    assert node.kept()["files/a"][2] == hashlib.sha256(b"4" + b"a" * 99).hexdigest()
    assert node.walks == 0


async def test_a_mapping_that_is_gone_while_its_file_is_open(node: Node) -> None:
    """No event tells of a write through a mapping as long as the file is open; that it is open is seen."""
    async with node.run() as tree:
        file = os.open(tree.files / "a", os.O_RDWR)
    for value in (b"1", b"2", b"3"):
        async with node.run():
            with mmap.mmap(file, 100) as mapped:
                mapped[:1] = value
        assert node.kept()["files/a"][2] == hashlib.sha256(value + b"a" * 99).hexdigest()
    os.close(file)


async def test_a_write_in_the_same_instant(node: Node) -> None:
    """A file of the same size, times and inode is read where an event told of it."""
    for value in range(30):
        async with node.run() as tree:
            with (tree.files / "a").open("r+b") as file:
                file.write(b"%04d" % value)
            os.utime(tree.files / "a", ns=(1, 1))
        assert node.kept() == on_disk(tree)


async def test_lost_events_lead_to_a_walk(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel's queue ran over, a walk finds what was changed."""
    queue = node.workspaces.quotas._queue
    read, lost = queue.read, [(-1, inotify.OVERFLOW, "")]
    async with node.run() as tree:
        (tree.files / "a").write_bytes(b"unheard")
        (tree.files / "d" / "new").write_bytes(b"unheard")
        monkeypatch.setattr(queue, "read", lambda: lost if read() else [])
    assert node.kept() == on_disk(tree)
    assert node.walks == 1


async def test_a_queue_that_really_runs_over(node: Node) -> None:
    """More events than the kernel keeps, and nobody who reads meanwhile: all that was written is kept."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    async with node.run() as tree:
        for number in range(most // 2 + 10):
            (tree.files / ("a" if number % 2 else "b")).write_bytes(b"%d" % number)  # three events
        (tree.files / "d" / "c").write_bytes(b"last")
    assert node.kept() == on_disk(tree)


async def test_without_watches_each_commit_walks(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that could not be put under watch tells nothing, so what is changed in it is searched for."""

    def refuse(folder: int) -> int:
        raise OSError(28, "no more watches")

    monkeypatch.setattr(node.workspaces.quotas._queue, "add", refuse)
    async with node.run() as tree:
        (tree.files / "unwatched").mkdir()
    async with node.run() as tree:
        (tree.files / "unwatched" / "x").write_bytes(b"1")
    assert node.kept() == on_disk(tree)


async def test_what_is_not_under_watch_is_walked(node: Node) -> None:
    """A deletion in a session that nobody watches is kept."""
    node.workspaces.quotas.drop(SESSION)
    await node.workspaces.of(SESSION).delete(read_path("d"), recursive=True)
    assert node.kept() == on_disk(node.workspaces.folders.tree(SESSION))
    assert node.walks == 1


async def test_a_watch_that_paused_knows_nothing(node: Node) -> None:
    """What was written while the session was not under watch is found by the first commit when it is so again."""
    node.workspaces.quotas.drop(SESSION)
    (node.workspaces.folders.tree(SESSION).files / "a").write_bytes(b"unwatched")
    async with node.run() as tree:
        pass
    assert node.kept() == on_disk(tree)


async def test_hard_links_are_walked(node: Node) -> None:
    """A file with two names is changed under one of them: both are kept as they are."""
    async with node.run() as tree:
        if (owner := node.workspaces.folders.worker_uid) is not None:
            os.chown(tree.files / "a", owner, owner)
            os.chown(tree.files / "b", owner, owner)
        (tree.files / "d" / "second").hardlink_to(tree.files / "a")
        (tree.locks / "third").hardlink_to(tree.files / "b")
    for name in ("first", "again"):
        async with node.run() as tree:
            (tree.files / "d" / "second").write_bytes(name.encode())
            with (tree.locks / "third").open("r+b") as file:
                file.write(name.encode())
        assert node.kept() == on_disk(tree)


async def test_a_commit_that_failed_is_not_forgotten(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store did not take is put by the next call, though that touches nothing."""

    def broken(*_: object, **__: object) -> None:
        raise PermissionError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(type(node.fs), "pipe_file", broken)
        with pytest.raises(StorageUnavailable):
            async with node.run() as tree:
                (tree.files / "a").write_bytes(b"not taken")
        with pytest.raises(StorageUnavailable):
            async with node.run():
                pass
    async with node.run() as tree:
        pass
    assert node.kept() == on_disk(tree)


async def test_runs_side_by_side_keep_what_each_did(node: Node) -> None:
    """When a run is answered what it wrote is in the current revision, whoever's commit put it there."""

    async def one(number: int) -> None:
        for turn in range(5):
            async with node.run() as tree:
                (tree.files / f"of-{number}").write_bytes(b"%d" % turn)
                await asyncio.sleep(0)
            assert node.kept()[f"files/of-{number}"][2] == hashlib.sha256(b"%d" % turn).hexdigest()
            async with node.run():
                pass

    await asyncio.gather(*(one(number) for number in range(6)))


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_done(node: Node, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of many runs that do things at random, the revision, whole or as changes, is what is on the disk."""
    monkeypatch.setattr(index, "WHOLE", 0 if seed % 2 else 1000)
    chance = random.Random(seed)
    for _ in range(40):
        async with node.run() as tree:
            for _ in range(chance.choice((0, 1, 1, 2, 5, 20))):
                with suppress(OSError, shutil.Error):
                    _do_something(chance, tree)
        assert node.kept() == on_disk(tree)
    assert node.walks == 0
    await node.workspaces.settle()
    objects = {path: node.fs.cat_file(path) for path in node.fs.find(f"/{node.name}/sessions") if "/files/" in path}
    assert sorted(objects.values()) == sorted(path.read_bytes() for path in _plain_files(tree))
    left = [path for path in node.fs.find(f"/{node.name}/sessions") if "/.rev/" in path]
    assert len(left) <= len(_plain_files(tree)) + len(list(tree.modules.rglob("*"))) + 2


def _plain_files(tree: Tree) -> list[Path]:
    return [path for path in tree.files.rglob("*") if path.is_file() and not path.is_symlink()]


async def test_an_index_as_changes_is_read_by_other_nodes(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told by differences makes an equal copy, and the index they differ from is not swept."""
    monkeypatch.setattr(index, "WHOLE", 0)
    monkeypatch.setattr(index, "SHARE", 1)
    for turn in range(3):
        async with node.run() as tree:
            (tree.files / "a").write_bytes(b"%d" % turn)
            (tree.files / "b").unlink(missing_ok=True)
        await node.workspaces.settle()
    assert [path for path in node.fs.find(f"/{node.name}/sessions") if "index.json" in path][1:]
    before, node.ledger.rows[SESSION] = on_disk(tree), replace(node.ledger.rows[SESSION], until=0.0)
    other = Node(tmp_path / "other", node.name, node.ledger)
    for _ in range(2):  # also what the other commits upon it
        async with other.run() as tree:
            assert on_disk(tree) == before
            (tree.files / "c").write_bytes(b"more")
        await other.workspaces.settle()
        before = on_disk(tree)
        assert other.kept() == before
    await other.workspaces.close()


def _do_something(chance: random.Random, tree: Tree) -> None:
    there = sorted([*tree.files.rglob("*"), *tree.modules.rglob("*")]) or [tree.files]
    folders = [path for path in [tree.files, tree.modules, *there] if path.is_dir() and not path.is_symlink()]
    one, place = chance.choice(there), chance.choice(folders) / chance.choice("abcdefgh")
    match chance.randrange(11):
        case 0 | 1 | 2:
            place.write_bytes(chance.randbytes(chance.choice((0, 1, 1, 100))))
        case 3:
            place.mkdir(parents=True)
        case 4:
            one.rename(place)
        case 5:
            shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
        case 6:
            one.chmod(chance.choice((0o700, 0o755, 0o640)), follow_symlinks=one.is_symlink())
        case 7:
            os.utime(one, ns=(1, chance.randrange(3)), follow_symlinks=False)
        case 8:
            place.symlink_to(chance.choice("abcdefgh"))
        case 9:
            os.truncate(one, chance.randrange(10))
        case 10:
            (place / "x" / "y").mkdir(parents=True)
            (place / "x" / "y" / "z").write_bytes(b"1")
