"""`dataproc doctor`: what is really in force here, by trying it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from pydantic import SecretStr

from dataproc.cli.output import line, table
from dataproc.clock import SystemClock
from dataproc.database import Database, NewerSchemaError, UnusableDatabase, shown
from dataproc.engine.doctor import probe
from dataproc.errors import DataprocError
from dataproc.settings import Settings, unknown_variables
from dataproc.storage import open_workspaces
from dataproc.telemetry import configure_logging, without_passwords


def examine(settings: Settings) -> dict[str, Any]:
    """The report: `ok` is whether a server started here would serve with every layer in force."""
    configure_logging(settings.log_format, "error")
    layers = [asdict(layer) for layer in probe(settings)]
    checks = [asyncio.run(_tried("database", settings, _database)), asyncio.run(_tried("storage", settings, _storage))]
    return {
        "ok": all(layer["in_force"] for layer in layers) and all(check["ok"] for check in checks),
        "version": version("dataproc"),
        "settings": [_setting(settings, name) for name in type(settings).model_fields],
        "unknown": unknown_variables(os.environ),
        "sandbox": layers,
        "checks": checks,
    }


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    table(report["settings"], ("name", "value", "from"), title=f"dataproc {report['version']}: settings in force")
    for name in report["unknown"]:
        line(f"  {name} is set, but is no setting: misspelt?")
    sandbox = [{**layer, "in force": "yes" if layer["in_force"] else "NO"} for layer in report["sandbox"]]
    table(sandbox, ("name", "in force", "detail", "remedy"), title="\nSandbox, each layer tried")
    checks = [{**check, "works": "yes" if check["ok"] else "NO"} for check in report["checks"]]
    table(checks, ("name", "works", "detail"), title="\nWhat it stands on")
    line("\nAll in force." if report["ok"] else "\nNot all is in force: see above.")


def _setting(settings: Settings, name: str) -> dict[str, Any]:
    value = getattr(settings, name)
    if isinstance(value, SecretStr):
        shown: Any = "[set]"
    else:
        shown = without_passwords(str(value)) if value is not None and not isinstance(value, int | float) else value
    chosen = name in settings.model_fields_set
    return {"name": f"DATAPROC_{name.upper()}", "value": shown, "from": "settings" if chosen else "default"}


async def _tried(name: str, settings: Settings, attempt: Callable[[Settings], Awaitable[str]]) -> dict[str, Any]:
    try:
        return {"name": name, "ok": True, "detail": await attempt(settings)}
    except DataprocError as refused:
        return {"name": name, "ok": False, "detail": refused.message}
    except (OSError, UnusableDatabase, NewerSchemaError) as refused:
        return {"name": name, "ok": False, "detail": str(refused)}


async def _database(settings: Settings) -> str:
    database = await Database.open(settings.database, SystemClock())
    await database.close()
    return shown(settings.database)


async def _storage(settings: Settings) -> str:
    workspaces = open_workspaces(settings)
    await workspaces.check()
    return without_passwords(settings.storage_url)
