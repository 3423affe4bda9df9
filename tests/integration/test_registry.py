"""Modules found in real folders, described by real processes, and followed as they change."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from dataproc.clock import ManualClock
from dataproc.errors import MethodNotFound, ModuleNotFound
from dataproc.module import Generation, ModuleBroken
from dataproc.registry import Registry
from dataproc.registry.copies import Copies, StillChanging
from dataproc.registry.environments import Environments
from dataproc.registry.record import RETRY
from dataproc.registry.sources import GROUP, find_sources
from dataproc.registry.updates import Updates
from dataproc.settings import Settings

FIXTURES = Path(__file__).parents[1] / "modules"
DEADLINE = 20
PROGRAM = """
import json, sys
from dataproc.module import ModuleBroken, load
try:
    print(json.dumps({"told": load(*sys.argv[1:4]).describe()}))
except ModuleBroken as broken:
    print(json.dumps({"broken": broken.reason}))
"""
CODE = """
from dataproc import Module
module = Module({alias!r}, version={version!r})

@module.method
def version() -> str:
    return {version!r}
"""


class Describer:
    """A process for each description, as the engine would; counts them, and can be made to fail."""

    def __init__(self) -> None:
        self.asked: list[Generation] = []
        self.failure: Exception | None = None

    async def __call__(self, generation: Generation) -> dict[str, Any]:
        self.asked.append(generation)
        if self.failure is not None:
            raise self.failure
        where = (generation.kind, generation.location, generation.module)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-B", "-c", PROGRAM, *where, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        answer = json.loads(out)
        if "broken" in answer:
            raise ModuleBroken(answer["broken"])
        told: dict[str, Any] = answer["told"]
        return told


class World:
    """A modules directory, a registry over it, and what it retired."""

    def __init__(self, root: Path) -> None:
        self.dir = root / "modules"
        self.dir.mkdir()
        self.clock = ManualClock()
        self.describe = Describer()
        settings = Settings(storage_url=str(root / "storage"), modules_dir=self.dir)
        self.registry = Registry(settings, self.describe, self.clock, points=())
        self.retired: asyncio.Queue[Generation] = asyncio.Queue()
        self.registry.on_retired(self.retired.put)

    def write(self, folder: str, version: str = "1", alias: str | None = None, text: str | None = None) -> None:
        """A module's folder, or a change of it, put there by rename as editors do."""
        target = self.dir / folder / "module.py"
        target.parent.mkdir(exist_ok=True)
        code = text if text is not None else CODE.format(version=version, alias=alias or folder)
        beside = target.with_name(".module.new")
        beside.write_text(code)
        beside.rename(target)

    async def row(self, name: str) -> dict[str, Any]:
        return next(row for row in await self.registry.list() if row["name"] == name)


@asynccontextmanager
async def started(root: Path, *fixtures: str) -> AsyncIterator[World]:
    world = World(root)
    for name in fixtures:
        shutil.copytree(FIXTURES / name, world.dir / name)
    await world.registry.start()
    try:
        yield world
    finally:
        await world.registry.stop()


async def test_a_module_is_described_once_and_at_first_need(tmp_path: Path) -> None:
    """Nothing is described by a start; many callers at once cause one description."""
    async with started(tmp_path, "echo") as world:
        assert not world.describe.asked
        entries = await asyncio.gather(*(world.registry.resolve("echo") for _ in range(20)))
        assert len(world.describe.asked) == 1
        assert all(entry is entries[0] for entry in entries)
        method = entries[0].method("day_after")
        assert (method.limits.timeout, method.limits.grace, method.exclusive, method.reads_only) == (5, 1, True, True)


async def test_a_known_name_does_not_suspend(tmp_path: Path) -> None:
    """The hot path gets its answer without giving way to another task."""
    async with started(tmp_path, "echo") as world:
        entry = await world.registry.resolve("echo")
        with pytest.raises(StopIteration) as answer:
            world.registry.resolve("echo").send(None)
        assert answer.value.value is entry


@pytest.mark.parametrize("name", ["my_module", "MY-Module", "my-module", "org.example.Mine", "ORG.example.mine"])
async def test_spellings_and_aliases_lead_to_one_canonical_name(tmp_path: Path, name: str) -> None:
    """Case, `_` for `-`, and the name given to Module."""
    async with started(tmp_path) as world:
        world.write("My_Module", alias="org.example.Mine")
        await world.registry.refresh()
        assert (await world.registry.resolve(name)).name == "my-module"


async def test_unknown_names_say_so(tmp_path: Path) -> None:
    """Unknown modules and methods carry the name; the method's error lists what there is."""
    async with started(tmp_path, "echo") as world:
        with pytest.raises(ModuleNotFound) as module:
            await world.registry.resolve("nowhere")
        assert module.value.data == {"module": "nowhere"}
        with pytest.raises(MethodNotFound, match=r"it has: .*echo-later"):
            (await world.registry.resolve("echo")).method("nothing-such")


async def test_a_broken_module_is_listed_with_its_error(tmp_path: Path) -> None:
    """It stops nobody else, and calling it says why."""
    async with started(tmp_path, "echo", "broken", "duplicate") as world:
        rows = {row["name"]: row for row in await world.registry.list()}
        assert {name: row["state"] for name, row in rows.items()} == {
            "echo": "ready", "broken": "broken", "duplicate": "broken"
        }  # fmt: skip
        assert "no such table of constants" in rows["broken"]["error"]
        assert "defined twice" in rows["duplicate"]["error"]
        assert rows["echo"]["aliases"] == ["com.example.echo"]
        with pytest.raises(ModuleNotFound) as caught:
            await world.registry.resolve("broken")
        assert "no such table of constants" in caught.value.data["reason"]
        assert str(tmp_path) not in str(caught.value.data)


async def test_broken_code_is_not_tried_at_every_call(tmp_path: Path) -> None:
    """The same code is tried again only after a while."""
    async with started(tmp_path, "broken") as world:
        for _ in range(3):
            with pytest.raises(ModuleNotFound):
                await world.registry.resolve("broken")
        assert len(world.describe.asked) == 1
        world.clock.advance(RETRY)
        with pytest.raises(ModuleNotFound):
            await world.registry.resolve("broken")
        assert len(world.describe.asked) == 2


async def test_a_failure_that_is_not_the_modules_is_not_remembered(tmp_path: Path) -> None:
    """An engine that is too busy passes through to the caller, and the next call tries again."""
    async with started(tmp_path, "echo") as world:
        world.describe.failure = RuntimeError("busy")
        with pytest.raises(RuntimeError, match="busy"):
            await world.registry.resolve("echo")
        world.describe.failure = None
        assert (await world.registry.resolve("echo")).name == "echo"


async def test_an_alias_of_two_modules_is_nobodys(tmp_path: Path) -> None:
    """It is told in both rows, and a call by it names the two; an alias never takes a module's own name."""
    async with started(tmp_path) as world:
        world.write("one", alias="same")
        world.write("two", alias="same")
        world.write("three", alias="one")
        await world.registry.refresh()
        rows = await world.registry.list()
        assert [(row["aliases"], "warnings" in row) for row in rows] == [([], True)] * 3
        with pytest.raises(ModuleNotFound, match="use one of: one, two"):
            await world.registry.resolve("same")
        assert (await world.registry.resolve("one")).name == "one"


async def test_describe_module_has_the_schemas(tmp_path: Path) -> None:
    """The row of the list, with each method's schemas and options."""
    async with started(tmp_path, "echo") as world:
        told = await world.registry.describe_module("com.example.echo")
        assert (told["name"], told["version"], told["state"]) == ("echo", "2.1.0", "ready")
        [method] = [method for method in told["methods"] if method["name"] == "day_after"]
        assert method["params"]["required"] == ["day"]
        assert method["result"]["format"] == "date"


async def test_what_a_method_returns_is_a_schema_also_where_it_is_not_annotated(tmp_path: Path) -> None:
    """Then it is the schema that takes anything."""
    async with started(tmp_path, "echo") as world:
        results = {each["name"]: each["result"] for each in (await world.registry.describe_module("echo"))["methods"]}
    assert results["unsaid"] == {}
    assert all(isinstance(result, dict) for result in results.values())


async def test_a_change_is_followed(tmp_path: Path) -> None:
    """New code is in force without a restart, and the users of the old generation are told."""
    async with started(tmp_path) as world:
        world.write("m", "1")
        await world.registry.refresh()
        before = (await world.registry.resolve("m")).generation
        world.write("m", "2")
        async with asyncio.timeout(DEADLINE):
            assert await world.retired.get() == before
        after = await world.registry.resolve("m")
        assert after.version == "2"
        assert Path(after.generation.location, "module.py").exists()


async def test_a_copy_is_deleted_when_its_users_have_done(tmp_path: Path) -> None:
    """The code of a generation out of force stays until the callbacks return."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "module.py").write_text("x = 1")
    copies = Copies(tmp_path / "copies")
    generation = copies.take("m", source)
    there: list[bool] = []

    async def still_used(retired: Generation) -> None:
        there.append(Path(retired.location, "module.py").exists())

    updates = Updates(copies, Environments(tmp_path / "environments"), Describer(), ManualClock())
    updates.retired.append(still_used)
    await updates.retire(generation)
    assert there == [True]
    assert not Path(generation.location).exists()


async def test_broken_code_leaves_the_old_generation_in_force(tmp_path: Path) -> None:
    """The row says what is wrong with the new code, and stops saying so when it is repaired."""
    async with started(tmp_path) as world:
        world.write("m", "1")
        await world.registry.refresh()
        entry = await world.registry.resolve("m")
        world.write("m", text="raise ValueError('half an idea')")
        await world.registry.refresh()
        row = await world.row("m")
        assert (row["state"], row["version"]) == ("ready", "1")
        assert "half an idea" in row["reload_error"]
        assert await world.registry.resolve("m") is entry
        assert Path(entry.generation.location, "module.py").exists()
        world.write("m", "1")
        await world.registry.refresh()
        assert "reload_error" not in await world.row("m")


async def test_a_repaired_module_comes_back(tmp_path: Path) -> None:
    """One that never worked is tried as soon as a change of its folder is seen."""
    async with started(tmp_path, "broken") as world:
        assert (await world.row("broken"))["state"] == "broken"
        world.write("broken", "1")
        await world.registry.refresh()
        assert (await world.row("broken"))["state"] == "ready"


async def test_modules_come_and_go(tmp_path: Path) -> None:
    """A folder that appears can be called, one that is removed cannot."""
    async with started(tmp_path) as world:
        world.write("m", "1")
        await world.registry.refresh()
        generation = (await world.registry.resolve("m")).generation
        shutil.rmtree(world.dir / "m")
        async with asyncio.timeout(DEADLINE):
            assert await world.retired.get() == generation
        with pytest.raises(ModuleNotFound):
            await world.registry.resolve("m")


async def test_a_touched_folder_is_the_same_generation(tmp_path: Path) -> None:
    """What counts is the content: nothing is described anew."""
    async with started(tmp_path) as world:
        world.write("m", "1")
        await world.registry.refresh()
        entry = await world.registry.resolve("m")
        world.write("m", "1")
        await world.registry.refresh()
        assert await world.registry.resolve("m") is entry
        assert len(world.describe.asked) == 1


async def test_names_that_are_none_are_not_served(tmp_path: Path) -> None:
    """Dots, leading underscores, plain files, and a second spelling of a name."""
    async with started(tmp_path) as world:
        for folder in ("a.b", "_hidden", "__pycache__", ".git", "m_x", "m-x"):
            world.write(folder)
        (world.dir / "README.md").write_text("x")
        await world.registry.refresh()
        assert [row["name"] for row in await world.registry.list()] == ["m-x"]


async def test_no_modules_directory_is_no_modules(tmp_path: Path) -> None:
    """A server without a modules directory starts, and finds it when it is made."""
    world = World(tmp_path)
    world.dir.rmdir()
    await world.registry.start()
    try:
        assert await world.registry.list() == []
        world.dir.mkdir()
        world.write("m")
        await world.registry.refresh()
        assert (await world.registry.resolve("m")).version == "1"
    finally:
        await world.registry.stop()


def test_a_copy_is_read_only_and_whole(tmp_path: Path) -> None:
    """Files, folders and links to files are copied; caches and hidden files are not."""
    source = tmp_path / "source"
    (source / "data" / "deep").mkdir(parents=True)
    (source / "module.py").write_text("x = 1")
    (source / "data" / "deep" / "table.csv").write_text("a\n1\n")
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "module.pyc").write_text("x")
    (source / ".env").write_text("SECRET=1")
    (source / "linked.txt").symlink_to(source / "module.py")
    (source / "loop").symlink_to(source)
    copies = Copies(tmp_path / "copies")
    generation = copies.take("m", source)
    copy = Path(generation.location)
    found = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert found == {"module.py", "data/deep/table.csv", "linked.txt"}
    assert not any(path.stat().st_mode & 0o222 or path.is_symlink() for path in [copy, *copy.rglob("*")])
    copies.drop(generation)
    assert not copy.exists()


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    """Equal folders have equal digests and copies of their own; one changed byte makes another."""
    copies, folders = Copies(tmp_path / "copies"), [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        (folder / "module.py").write_text("x = 1")
    first, second = (copies.take("m", folder) for folder in folders)
    assert first.digest == second.digest
    assert first.location != second.location
    (folders[1] / "module.py").write_text("x = 2")
    assert copies.take("m", folders[1]).digest != first.digest


def test_a_folder_that_changes_under_the_copy_is_noticed(tmp_path: Path) -> None:
    """No copy is made of a folder that is being written to, and nothing is left of the attempt."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "module.py").write_text("x = 1")
    (source / "large.bin").write_bytes(bytes(64 * 2**20))
    writing, enough = threading.Event(), threading.Event()

    def write() -> None:
        with (source / "growing.txt").open("a") as file:
            while not enough.is_set():
                file.write("x")
                file.flush()
                writing.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert writing.wait(DEADLINE)
        with pytest.raises(StillChanging):
            Copies(tmp_path / "copies").take("m", source)
    finally:
        enough.set()
        writer.join()
    assert not [path for path in (tmp_path / "copies").rglob("*") if path.is_file()]


def test_leftovers_are_swept_only_by_who_is_alone(tmp_path: Path) -> None:
    """A second server of the node does not delete what the first one runs; the next life of the node does."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "module.py").write_text("x = 1")
    copies = Copies(tmp_path / "copies")
    with copies.hold():
        generation = copies.take("m", source)
        with copies.hold():
            assert Path(generation.location).exists()
    with copies.hold():
        assert not Path(generation.location).exists()


def test_a_folder_hides_an_entry_point(tmp_path: Path) -> None:
    """Of one name the folder is served, and a warning names the entry point; names are compared in canonical form."""
    (tmp_path / "both").mkdir()
    points = [EntryPoint(name, f"package.{name}:module", GROUP) for name in ("Both", "only_this", "no.name")]
    found = find_sources(tmp_path, points)
    assert {name: type(source).__name__ for name, source in found.sources.items()} == {
        "both": "FolderSource",
        "only-this": "EntrySource",
    }
    assert "entry point 'Both' (package.Both:module) is hidden by a folder of that name" in found.warnings
    assert len(found.warnings) == 2
