"""`dataproc module dev`: a real server for one module, on a temporary folder, with a key and a session ready to use."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from functools import partial
from pathlib import Path

from watchfiles import awatch

from dataproc.cli import serve
from dataproc.cli.output import line
from dataproc.composition import System
from dataproc.types import Principal
from dataproc.workbench import module_name, temporary_settings

LIFE = 24 * 3600  # seconds of the session


def run(folder: Path, port: int) -> None:
    """Serve until a signal says stop."""
    name = module_name(folder)
    with tempfile.TemporaryDirectory(prefix="dataproc-dev-") as place:
        changes = {"host": "127.0.0.1", "port": port, "uds": None, "tls_cert": None, "tls_key": None}
        settings = temporary_settings(Path(place), name, folder, **changes)
        if "log_level" not in settings.model_fields_set:
            settings = settings.model_copy(update={"log_level": "error"})
        serve.run(settings, first_key=False, ready=partial(_ready, folder, name))


def _ready(folder: Path, name: str, system: System, address: str) -> None:
    logging.getLogger("dataproc.audit").setLevel(logging.ERROR)  # nobody audits an author at work
    line(f"listening on {address}")
    serving = asyncio.current_task()
    assert serving is not None
    beside = asyncio.create_task(_beside(folder, name, system, address))
    serving.add_done_callback(lambda _: beside.cancel())


async def _beside(folder: Path, name: str, system: System, address: str) -> None:
    """Tell how to call it, then what becomes of each change."""
    key = await system.keys.create("dev")
    life = min(LIFE, system.settings.max_expires_in)
    opened = await system.sessions.open(Principal(key.id, "key", key.scopes, key.grants), expires_in=life)
    line("\nIn another shell:")
    exports = {
        "URL": address, "APIKEY": key.apikey, "SECRET": key.secret, "SESSION_TOKEN": opened.access_token,
    }  # fmt: skip
    for variable, value in exports.items():
        line(f"  export DATAPROC_{variable}={value}")
    told = await _told(system, name, "")
    async for _ in awatch(folder):
        await system.registry.refresh()
        told = await _told(system, name, told)


async def _told(system: System, name: str, before: str) -> str:
    """Print what state the module is in, if that is news."""
    row = next(row for row in await system.registry.list() if row["name"] == name)
    if why := row.get("error") or row.get("reload_error"):
        now = f"\nbroken: {why}" + ("\n(the code before goes on)" if row["state"] == "ready" else "")
    else:
        entry = await system.registry.resolve(name)
        calls = "".join(f"\n  dataproc exec {name}.{method}" for method in row["methods"])
        now = f"\nready, generation {entry.generation.digest[:12]}:{calls}"
    if now != before:
        line(now)
    return now
