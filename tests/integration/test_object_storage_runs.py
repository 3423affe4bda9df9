"""Runs of confined workers on object storage: what they leave is in the store when they are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest

from tests.factories import call, open_session, with_token
from tests.systems import a_caller, a_system, write_files

MODULE = {
    "mapper/dataproc.toml": "[module]\nname = 'mapper'\n",
    "mapper/module.py": """
        import mmap, os

        from dataproc import Context, Module

        module = Module("mapper", version="1.0.0", description="Keeps files mapped and open.")


        @module.method()
        def map(ctx: Context, name: str) -> None:
            (ctx.session / name).write_bytes(bytes(100))
            ctx.cache["file"] = file = open(ctx.session / name, "r+b")
            ctx.cache["mapped"] = mmap.mmap(file.fileno(), 100)


        @module.method()
        def poke(ctx: Context, value: int) -> None:
            ctx.cache["mapped"][:1] = bytes([value])


        @module.method()
        def look(ctx: Context) -> list[str]:
            return sorted(os.listdir(ctx.session))


        @module.method()
        def unmap(ctx: Context, value: int) -> None:
            ctx.cache["mapped"][:1] = bytes([value])
            ctx.cache["mapped"].close()
            ctx.cache["file"].close()


        @module.method()
        def shut(ctx: Context, name: str, mode: int) -> None:
            os.chmod(ctx.session / name, mode)
        """,
}


class Runs:
    """Runs methods in a session, and knows the store."""

    def __init__(self, client: httpx.AsyncClient, session: str, top: str) -> None:
        self._client, self._session, self._top = client, session, top
        self._fs = fsspec.filesystem("memory")

    async def __call__(self, method: str, **params: Any) -> Any:
        asked = {"module": "mapper", "method": method, "params": params}
        answer = await call(self._client, "dataproc.exec", asked)
        assert "result" in answer, answer
        return answer["result"]

    def revisions(self) -> list[str]:
        """The indices in the store, the latest last."""
        found = self._fs.glob(f"{self._top}/{self._session[:2]}/{self._session}/.rev/*/index.json")
        return sorted(found, key=lambda path: int(path.split("/")[-2].partition("-")[2]))

    async def kept(self, system: Any, name: str) -> bytes:
        """A file's bytes under its plain name, when that is up to date."""
        await system.workspaces.settle()
        data: bytes = self._fs.cat_file(f"{self._top}/{self._session[:2]}/{self._session}/files/{name}")
        return data


@pytest.fixture
async def runs(tmp_path: Path) -> AsyncIterator[tuple[Runs, Any]]:
    """A session of a server on a store in memory."""
    write_files(tmp_path / "modules", MODULE)
    url = f"memory://{tmp_path.name}-{tmp_path.parent.name}"
    chosen = {
        "storage_url": url, "database_url": f"sqlite:///{tmp_path}/x.db", "cache_dir": tmp_path / "cache",
        "lease": 600,
    }  # fmt: skip
    async with a_system(tmp_path, **chosen) as system, a_caller(system) as client:
        opened = await open_session(client)
        client.headers = httpx.Headers(with_token(opened["access_token"]))
        yield Runs(client, opened["session_id"], f"{url.removeprefix('memory:/')}/sessions"), system
        assert system.workspaces.quotas.find(opened["session_id"], system.workspaces.folders.tree(opened["session_id"]))


async def test_what_a_warm_worker_keeps_mapped(runs: tuple[Runs, Any]) -> None:
    """Writes through a mapping of an earlier run, which make no event, are in the store after each run."""
    run, system = runs
    await run("map", name="a")
    for value in (1, 2, 3):
        await run("poke", value=value)
        assert (await run.kept(system, "a"))[:1] == bytes([value])
    await run("unmap", value=4)
    await run("look")
    assert (await run.kept(system, "a"))[:1] == bytes([4])


async def test_modes_and_readers(runs: tuple[Runs, Any]) -> None:
    """A run that only looks makes no revision; one that changes a mode alone makes one."""
    run, system = runs
    await run("map", name="a")
    await run("unmap", value=1)
    await run("look")
    await system.workspaces.settle()
    before = run.revisions()
    assert await run("look") == ["a"]
    await system.workspaces.settle()
    assert run.revisions() == before
    await run("shut", name="a", mode=0o740)
    await system.workspaces.settle()
    assert run.revisions() != before
