"""What object storage promises beyond the contract of a workspace: leases, plain names, bounds, applications."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest

from dataproc.clock import Clock, ManualClock, SystemClock
from dataproc.errors import Conflict, QuotaExceeded, StorageUnavailable
from dataproc.settings import Settings
from dataproc.storage import Workspaces, open_workspaces
from dataproc.storage.object_store.leases import Ledger, MemoryLeases
from dataproc.storage.paths import RelPath
from dataproc.storage.usage.usages import MemoryUsages, Usages
from tests.contracts.test_workspace import pieces

SESSION = "5e551011-0000-4000-8000-000000000001"
OTHER = "5e551011-0000-4000-8000-000000000002"
AS_PLAIN_USER = Path(__file__).parents[1] / "security" / "as_plain_user.py"
PLAIN_UID = 64996


class Store:
    """A store in memory, and the nodes that share it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, uuid.uuid4().hex
        self.ledger = Ledger()
        self.fs = fsspec.filesystem("memory")
        self.nodes: list[Workspaces] = []

    def node(
        self,
        machine: str,
        usages: Usages | None = None,
        clock: Clock | None = None,
        lease: float = 15,
        **chosen: object,
    ) -> Workspaces:
        """A server on a machine."""
        settings = Settings(
            storage_url=f"memory://{self.name}",
            database_url="sqlite://",
            cache_dir=self.folder / machine,
            **chosen,  # type: ignore[arg-type]
        )
        clock = clock or SystemClock()
        made = open_workspaces(settings, clock, MemoryLeases(self.ledger, clock, lease, machine), machine, usages)
        self.nodes.append(made)
        return made

    def objects(self, below: str = "") -> dict[str, bytes]:
        """All objects of the session, by key."""
        top = f"/{self.name}/sessions/{SESSION[:2]}/{SESSION}/"
        return {path.removeprefix(top): self.fs.cat_file(path) for path in self.fs.find(top + below)}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty one."""
    made = Store(tmp_path)
    yield made
    for node in made.nodes:
        await node.close()
    with suppress(FileNotFoundError):
        made.fs.rm(f"/{made.name}", recursive=True)


async def until(happens: Callable[[], bool]) -> None:
    """Return when it has happened."""
    async with asyncio.timeout(30):
        while not happens():  # noqa: ASYNC110 - on a disk, which tells nobody
            await asyncio.sleep(0.01)


async def test_plain_names_follow(store: Store) -> None:
    """After a commit the files are under their own names too, what was deleted goes, and no old revision stays."""
    node = store.node("here")
    for content in (b"1", b"2", b"3"):
        async with node.of(SESSION).checkout() as tree:
            (tree.files / "d").mkdir(exist_ok=True)
            (tree.files / "d" / "changing").write_bytes(content)
            (tree.files / "same").write_bytes(b"same") if content == b"1" else None
            (tree.files / "going").write_bytes(b"") if content == b"2" else (tree.files / "going").unlink(True)
        await node.settle()
    objects = store.objects()
    plain = {key: data for key, data in objects.items() if not key.startswith(".rev/")}
    assert plain == {"files/d/changing": b"3", "files/same": b"same"}
    kept = {key: data for key, data in objects.items() if key.startswith(".rev/") and not key.endswith("index.json")}
    assert sorted(kept.values()) == [b"3", b"same"]
    assert len(objects) == len(plain) + len(kept) + 1


async def test_a_run_that_changes_nothing_puts_nothing(store: Store) -> None:
    """Reading files, and looking at them, makes no revision."""
    node = store.node("here")
    async with node.of(SESSION).checkout() as tree:
        (tree.files / "a").write_bytes(b"1")
    await node.settle()
    before, revision = store.objects(), store.ledger.rows[SESSION].revision
    async with node.of(SESSION).checkout() as tree:
        assert (tree.files / "a").read_bytes() == b"1"
    assert (store.objects(), store.ledger.rows[SESSION].revision) == (before, revision)


async def test_who_lost_the_lease_commits_nothing(store: Store) -> None:
    """A run that outlives its node's lease, which another took, ends in Conflict; its workers are ended before."""
    clock, left = ManualClock(), list[str]()
    here, there = store.node("here", clock=clock), store.node("there", clock=clock)

    async def note(session_id: str) -> None:
        left.append(session_id)

    here.on_left(note)
    async with here.of(SESSION).checkout() as tree:
        (tree.files / "a").write_bytes(b"first")

    async def run() -> None:
        async with here.of(SESSION).checkout() as tree:
            (tree.files / "a").write_bytes(b"too late")
            clock.advance(16)
            async with there.of(SESSION).checkout() as other:
                assert (other.files / "a").read_bytes() == b"first"
                (other.files / "b").write_bytes(b"second")

    with pytest.raises(Conflict) as told:
        await run()
    assert told.value.data["reason"] == "lease"
    assert left == [SESSION]
    clock.advance(16)
    async with here.of(SESSION).checkout() as tree:
        assert {path.name: path.read_bytes() for path in tree.files.iterdir()} == {"a": b"first", "b": b"second"}


async def test_a_copy_outlives_its_lease(store: Store) -> None:
    """Where nobody took the session meanwhile, the next run finds the same folders, and nothing is fetched."""
    clock = ManualClock()
    node = store.node("here", clock=clock)
    async with node.of(SESSION).checkout() as tree:
        (tree.files / "a").write_bytes(b"1")
    clock.advance(1000)
    async with node.of(SESSION).checkout() as again:
        assert again is tree


async def test_of_two_that_want_it_one_waits(store: Store) -> None:
    """A node that asks for a session takes it when the holder's lease has run out, and not before."""
    here, there = store.node("here", lease=0.5), store.node("there", lease=0.5)
    async with here.of(SESSION).checkout() as tree:
        (tree.files / "a").write_bytes(b"1")
    waiting = asyncio.create_task(there.bring(SESSION))
    await here.close()
    assert ((await waiting).files / "a").read_bytes() == b"1"


async def test_the_least_used_copies_go(store: Store) -> None:
    """Beyond the bound the copy that was not used for longest leaves the disk, and comes back when it is asked for."""
    node = store.node("here", lease=0.3, copies_size=1500)
    for session in (SESSION, OTHER):
        async with node.of(session).checkout() as tree:
            (tree.files / "a").write_bytes(bytes(1000))
    async with node.of(SESSION).checkout() as used, node.of(OTHER).checkout() as tree:
        pass
    async with node.of(SESSION).checkout():  # the other is the least used now
        await until(lambda: not tree.files.exists())
        assert used.files.exists()
    async with node.of(OTHER).checkout() as tree:
        assert (tree.files / "a").read_bytes() == bytes(1000)


async def test_what_left_the_disk_counts_for_its_key(store: Store) -> None:
    """A session whose copy was taken away takes what it took, though that was not noted before."""
    usages = MemoryUsages({SESSION: "k", OTHER: "k"})
    node = store.node("here", usages, lease=0.3, copies_size=1500, key_bytes=2500)
    trees = []
    for session in (OTHER, SESSION):
        async with node.of(session, "k").checkout() as tree, await node.observe(session, "k", tree) as run:
            (tree.files / "a").write_bytes(bytes(1000))
            await run.end()
        trees.append(tree)
    await until(lambda: not trees[0].files.exists())
    await node.quotas.keys.refresh()
    assert usages.noted[OTHER].bytes == 1000
    with pytest.raises(QuotaExceeded):
        await node.of(SESSION, "k").write(RelPath(("b",)), pieces(bytes(600)))
    await node.of(SESSION, "k").write(RelPath(("b",)), pieces(bytes(400)))


async def test_holes_count_where_they_are_stored(store: Store) -> None:
    """A store knows no holes: a sparse file takes its whole size, on every node, and is held to the quota."""
    here = store.node("here", session_bytes=2**20)
    async with here.of(SESSION).checkout() as tree, await here.observe(SESSION, "k", tree) as run:
        (tree.files / "sparse").touch()
        os.truncate(tree.files / "sparse", 2**20)
        assert (await run.end())[1] is None
    assert (await here.usage(SESSION)).bytes == 2**20
    async with here.of(SESSION).checkout() as tree, await here.observe(SESSION, "k", tree) as run:
        os.truncate(tree.files / "sparse", 2**20 + 1)
        error = (await run.end())[1]
        assert error is not None
        assert error.data["quota"] == "session_bytes"


async def test_application_folders_travel(store: Store) -> None:
    """What a run leaves in its application folder another node finds; what it removes there goes from the store."""
    here = store.node("here")
    folder = await here.application("key-1", "tabular")
    async with here.of(SESSION).checkout(("key-1", "tabular")):
        (folder / "d").mkdir()
        (folder / "d" / "kept").write_bytes(b"1")
        (folder / "gone").write_bytes(b"2")
    async with here.of(SESSION).checkout(("key-1", "tabular")):
        (folder / "gone").unlink()
    found = await store.node("there").application("key-1", "tabular")
    assert {str(path.relative_to(found)) for path in found.rglob("*")} == {"d", "d/kept"}
    assert (found / "d" / "kept").read_bytes() == b"1"


async def test_what_the_store_did_not_take_is_kept_here(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store fails callers are told so; when it is back, the files get there without anybody asking."""
    node = store.node("here", lease=0.3)
    async with node.of(SESSION).checkout():
        pass

    def broken(*_: object, **__: object) -> None:
        raise PermissionError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(type(store.fs), "pipe_file", broken)
        with pytest.raises(StorageUnavailable) as told:
            async with node.of(SESSION).checkout() as tree:
                (tree.files / "a").write_bytes(b"1")
        assert told.value.retryable
    await until(lambda: store.objects("files").get("files/a") == b"1")


SHUT = f"""
import asyncio, os, sys
from pathlib import Path
from dataproc.clock import SystemClock
from dataproc.settings import Settings
from dataproc.storage import open_workspaces
from dataproc.storage.object_store.leases import Ledger, MemoryLeases
from dataproc.storage.paths import RelPath
from dataproc.storage.usage.usages import MemoryUsages, Usages
from tests.contracts.test_workspace import pieces

def node(ledger, machine):
    settings = Settings(storage_url="memory://shut", database_url="sqlite://", cache_dir=Path(sys.argv[1]) / machine)
    return open_workspaces(settings, leases=MemoryLeases(ledger, SystemClock(), 15))

async def main():
    ledger = Ledger()
    here = node(ledger, "here")
    async with here.of("{SESSION}").checkout() as tree:
        (tree.files / "d" / "e").mkdir(parents=True)
        (tree.files / "d" / "e" / "f").write_bytes(b"1")
        (tree.files / "large").write_bytes(bytes(3_000_000))
    async with here.of("{SESSION}").checkout() as tree:
        (tree.files / "d" / "e" / "f").write_bytes(b"22")
        (tree.files / "d" / "e" / "f").chmod(0)
        (tree.files / "d" / "e").chmod(0)
        (tree.files / "d").chmod(0o100)
        (tree.files / "large").chmod(0)
    async with here.of("{SESSION}").checkout() as tree:
        assert (tree.files / "d").stat().st_mode & 0o777 == 0o100
    await here.close()
    there = node(ledger, "there")
    async with there.of("{SESSION}").checkout() as tree:
        for path, mode in (("d", 0o100), ("d/e", 0), ("d/e/f", 0), ("large", 0)):
            assert (tree.files / path).stat().st_mode & 0o777 == mode, path
            (tree.files / path).chmod(0o700)
        assert (tree.files / "d" / "e" / "f").read_bytes() == b"22"
        assert (tree.files / "large").stat().st_size == 3_000_000
    await there.close()

assert os.geteuid() != 0
asyncio.run(main())
print("kept")
"""


def test_what_a_module_shuts_is_kept_by_a_plain_user(tmp_path: Path) -> None:
    """Files and folders that a module closes by their modes stay in the revision, with these modes."""
    command = [sys.executable, "-c", SHUT, str(tmp_path / "cache")]
    if os.getuid() == 0:
        seen = [str(Path(sys.prefix).resolve()), str(Path(sys.base_prefix)), str(AS_PLAIN_USER.parents[2])]
        os.chown(tmp_path, PLAIN_UID, PLAIN_UID)
        seen.append(str(tmp_path))
        command = [sys.executable, str(AS_PLAIN_USER), str(PLAIN_UID), *seen, "--", *command]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=AS_PLAIN_USER.parents[2])
    assert ran.stdout == "kept\n", ran.stderr[-3000:]
