"""A whole System in the test's process: real engine, real walls, reached through its application."""

from __future__ import annotations

import os
import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from dataproc.composition import System, build
from dataproc.web.app import create_app
from tests.factories import a_settings, with_key


@asynccontextmanager
async def a_system(folder: Path, **chosen: Any) -> AsyncIterator[System]:
    """A System that is up, on modules in `folder/modules`."""
    (folder / "storage").mkdir(parents=True, exist_ok=True)
    (folder / "modules").mkdir(exist_ok=True)
    system = await build(a_settings(folder, **{"sandbox": "auto", "close_wait": 2, **chosen}))
    await system.start()
    try:
        yield system
    finally:
        await system.stop()


@asynccontextmanager
async def a_caller(system: System, **key: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a fresh key of that system."""
    made = await system.keys.create(f"key-{os.urandom(4).hex()}", **key)
    transport = httpx.ASGITransport(create_app(system), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://dataproc", headers=with_key(made), timeout=60
    ) as client:
        yield client


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Files with their text, dedented; one that begins with `#!` can be run."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        if path.read_text().startswith("#!"):
            path.chmod(0o755)
