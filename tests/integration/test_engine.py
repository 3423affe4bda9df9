"""The engine without a server: real keeper, zygotes and workers, each wall taken away in turn."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dataproc.engine import landlock
from dataproc.engine.launch import Demand, Profile
from dataproc.engine.local import LocalEngine
from dataproc.engine.output import Output
from dataproc.engine.pool import WorkerPool
from dataproc.engine.words import Task
from dataproc.engine.worker import Worker
from dataproc.errors import ExecCrashed
from dataproc.module import Generation, ModuleBroken
from dataproc.runs import Completed, Crashed, Failed, TimedOut
from dataproc.settings import GiB, Settings

MODULES = Path(__file__).parent.parent / "modules"
DEADLINE = 30.0
PROFILE = Profile(memory=GiB, processes=64)


@dataclass
class House:
    """An engine with a pool, and sessions as folders beside it."""

    folder: Path
    engine: LocalEngine
    pool: WorkerPool
    runs: int = 0

    def demand(self, module: str, session: str = "one") -> Demand:
        return Demand(session, generation(module), PROFILE)

    def session(self, name: str) -> Path:
        """A session's directory, as the storage would make it."""
        base = self.folder / "sessions" / name
        for place in ("files", "locks", "application"):
            (base / place).mkdir(parents=True, exist_ok=True)
            if self.engine.ground.uid is not None:
                os.chown(base / place, self.engine.ground.uid, self.engine.ground.uid)
        return base / "files"

    def folders(self, name: str) -> Callable[[], Awaitable[dict[str, Path]]]:
        async def give() -> dict[str, Path]:
            base = self.session(name).parent
            return {"session": base / "files", "locks": base / "locks", "application": base / "application"}

        return give

    def task(self, method: str, timeout: float = DEADLINE, **params: Any) -> Task:
        self.runs += 1
        output = Output(self.folder / "logs", f"run-{self.runs}", 4096)
        return Task(f"run-{self.runs}", method, params, timeout, 0.5, output, {}, {})

    async def call(self, module: str, method: str, session: str = "one", **params: Any) -> Any:
        """Lease, run, release."""
        worker = await self.pool.lease(self.demand(module, session), self.folders(session))
        try:
            return await worker.run(self.task(method, **params))
        finally:
            self.pool.release(worker)


def generation(module: str) -> Generation:
    return Generation(module, f"digest of {module}", "folder", str(MODULES / module))


@asynccontextmanager
async def a_house(folder: Path, namespaces: bool = True, **settings: Any) -> AsyncIterator[House]:
    known = Settings(storage_url=str(folder), _env_file=None, **settings)
    engine = LocalEngine(known, "test")
    if not namespaces:
        engine.ground = replace(engine.ground, namespaces=False, uid=None)
    await engine.start()
    try:
        yield House(folder, engine, WorkerPool(engine, known))
    finally:
        await engine.stop()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


def alive(worker: Worker) -> bool:
    return Path(f"/proc/{worker.pid}").exists()


async def test_a_worker_is_kept_warm_for_its_session_alone(house: House) -> None:
    """The next call of the session finds the same process; another session never does."""
    worker = await house.pool.lease(house.demand("echo"), house.folders("one"))
    house.pool.release(worker)
    assert await house.pool.lease(house.demand("echo"), house.folders("one")) is worker
    assert await house.pool.lease(house.demand("echo", "two"), house.folders("two")) is not worker


async def test_spares_that_die_are_not_made_for_ever(house: House) -> None:
    """One is tried for each session that comes, and sessions get their workers all the same."""
    zygote = await house.engine.zygote(generation("spareless"), network=False)

    async def died(times: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while zygote.last_words.count("a spare died") < times:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)

    await died(1)
    for number in (1, 2):
        assert await house.call("spareless", "nothing", f"session {number}") == Completed(True)
        await died(1 + number)
    await asyncio.sleep(0.3)  # time for a hundred
    assert zygote.last_words.count("a spare died") == 3


async def test_a_module_knows_a_gateway_s_session_as_the_gateway_does(house: House) -> None:
    """`ctx.session_id` is the id on the wire, not the one that it is kept under."""
    ended = await house.call("echo", "where", session="gw.their-session")
    assert ended.result["session_id"] == "their-session"


async def test_the_warm_set_is_bounded_and_the_oldest_go(tmp_path: Path) -> None:
    """One idle worker too many ends the one that was used longest ago."""
    async with a_house(tmp_path, warm_workers=2) as house:
        first, *others = [await house.pool.lease(house.demand("echo", s), house.folders(s)) for s in ("a", "b", "c")]
        for worker in (first, *others):
            house.pool.release(worker)
        await asyncio.wait_for(first.gone, DEADLINE)
        assert house.pool.counts == {"busy": 0, "idle": 2}
        assert all(worker.alive for worker in others)


async def test_forgetting_a_session_ends_its_workers(house: House) -> None:
    """When `forget` returns no process of the session is left; other sessions keep theirs."""
    ours = await house.pool.lease(house.demand("echo"), house.folders("one"))
    theirs = await house.pool.lease(house.demand("echo", "two"), house.folders("two"))
    house.pool.release(ours)
    house.pool.release(theirs)
    await house.pool.forget("one")
    assert not alive(ours)
    assert alive(theirs)


async def test_a_retired_generation_ends_after_its_runs(house: House) -> None:
    """A run under way finishes on the old code; its worker is ended then, not kept."""
    worker = await house.pool.lease(house.demand("echo"), house.folders("one"))
    await house.pool.retire(generation("echo"))
    assert await worker.run(house.task("echo", value=7)) == Completed(7)
    house.pool.release(worker)
    await asyncio.wait_for(worker.gone, DEADLINE)


async def test_a_work_directory_goes_with_its_worker(house: House) -> None:
    """Nothing of a worker that has ended stays on the disk."""
    worker = await house.pool.lease(house.demand("echo"), house.folders("one"))
    work = house.folder / ".node" / "work" / "test" / str(worker.number)
    assert work.is_dir()
    house.pool.release(worker)
    await house.pool.forget("one")
    await house.engine.stop()
    assert not work.exists()


async def test_a_killed_keeper_takes_everything_along_and_is_replaced(house: House) -> None:
    """The run under way is one crash; the next call gets a new keeper, zygote and worker."""
    worker = await house.pool.lease(house.demand("sleeper"), house.folders("one"))
    run = asyncio.ensure_future(worker.run(house.task("nap", seconds=60)))
    await asyncio.sleep(0)  # it is sent in the first step of the run
    assert house.engine._keeper is not None
    os.kill(house.engine._keeper._process.pid, signal.SIGKILL)
    assert isinstance(await asyncio.wait_for(run, DEADLINE), Crashed)
    house.pool.release(worker)
    assert await house.call("echo", "echo", value=1) == Completed(1)
    assert not alive(worker)


async def test_a_zygote_that_keeps_dying_rests(house: House) -> None:
    """A module that dies at import is broken, and is not started again at once."""
    with pytest.raises(ModuleBroken, match="died at import"):
        await house.engine.describe(generation("importing-death"))
    for _ in range(2):
        with pytest.raises(ExecCrashed) as refused:
            await house.pool.lease(house.demand("importing-death"), house.folders("one"))
    assert "keep dying" in refused.value.message


async def test_a_module_that_must_not_be_forked_gets_fresh_interpreters(house: House) -> None:
    """`fork=False`: the zygote never imports the module, so each worker has its own import."""
    made = generation("fresh")
    description = await house.engine.describe(made)
    assert description["fork"] is False
    first = await house.call("fresh", "imported-by", "one")
    second = await house.call("fresh", "imported-by", "two")
    assert (first, second) == (Completed("the worker"), Completed("the worker"))


async def test_a_run_over_its_time_is_ended_and_its_worker_with_it(house: House) -> None:
    """TimedOut, also for a method that ignores SIGTERM; no worker is reused after that."""
    worker = await house.pool.lease(house.demand("sleeper"), house.folders("one"))
    outcome = await worker.run(house.task("deaf", timeout=0.2))
    house.pool.release(worker)
    assert outcome == TimedOut(0.2)
    await asyncio.wait_for(worker.gone, DEADLINE)


async def test_landlock_alone_keeps_sessions_apart(tmp_path: Path) -> None:
    """Without namespaces a worker still reads and writes its own session and no other, though it knows the path."""
    if landlock.abi() < landlock.OLDEST:
        pytest.skip("SKIPPED LOUDLY: this kernel has no Landlock")
    async with a_house(tmp_path, namespaces=False) as house:
        assert "namespaces" not in house.engine.layers
        secret = house.session("two") / "secret.txt"
        secret.write_text("two's")
        own = house.session("one") / "own.txt"
        assert await house.call("prober", "write", path=str(own)) == Completed("worked")
        assert await house.call("prober", "read", path=str(secret)) == Completed({"outcome": "EACCES"})
        assert await house.call("prober", "write", path=str(secret)) == Completed("EACCES")
        assert await house.call("prober", "plant", target=str(secret), name="link") == Completed("worked")
        through = str(own.parent / "link")
        assert await house.call("prober", "read", path=through) == Completed({"outcome": "EACCES"})
        assert secret.read_text() == "two's"


async def test_namespaces_alone_keep_sessions_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Landlock the path of another session, or of the storage, does not exist for a worker."""
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    async with a_house(tmp_path) as house:
        assert not any(layer.startswith("landlock") for layer in house.engine.layers)
        secret = house.session("two") / "secret.txt"
        secret.write_text("two's")
        assert await house.call("prober", "write", path="/session/own.txt") == Completed("worked")
        assert await house.call("prober", "read", path=str(secret)) == Completed({"outcome": "ENOENT"})
        assert await house.call("prober", "plant", target=str(secret), name="link") == Completed("worked")
        assert await house.call("prober", "read", path="/session/link") == Completed({"outcome": "ENOENT"})


@pytest.mark.parametrize("sandbox", ["auto", "off"])
async def test_sessions_come_and_go(tmp_path: Path, sandbox: str) -> None:
    """Whatever numbers the zygote's descriptors have got by then, the next worker comes up."""
    async with a_house(tmp_path, sandbox=sandbox) as house:
        for number in range(30):
            assert await house.call("echo", "echo", session=f"s{number}", value=number) == Completed(number)
            if number % 3:
                await house.pool.forget(f"s{number - 1}")


async def test_without_walls_it_still_runs_and_ends(tmp_path: Path) -> None:
    """`off`: no layer is in force, and calls, failures and time limits work all the same."""
    async with a_house(tmp_path, sandbox="off") as house:
        assert house.engine.layers == ()
        assert await house.call("echo", "echo", value=1) == Completed(1)
        assert isinstance(await house.call("echo", "fail"), Failed)
        worker = await house.pool.lease(house.demand("sleeper"), house.folders("one"))
        assert await worker.run(house.task("deaf", timeout=0.2)) == TimedOut(0.2)
        house.pool.release(worker)
        await asyncio.wait_for(worker.gone, DEADLINE)
