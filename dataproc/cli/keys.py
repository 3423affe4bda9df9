"""`dataproc key`: the administrator's verbs. They work on the database, beside a running server or without one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dataproc.cli.output import Format, Output, as_json, line, members, table

if TYPE_CHECKING:
    from dataproc.access import Key, Keys, NewKey

T = TypeVar("T")
app = typer.Typer(help="Make, list, rotate and revoke API keys.", no_args_is_help=True)
COLUMNS = ("id", "name", "apikey", "scopes", "grants", "state", "created_at", "expires_at")

Which = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, from `key list`, or its name.")]
Name = Annotated[str, typer.Option("--name", help="What the key is for; people read it.")]
Scopes = Annotated[
    str | None, typer.Option("--scopes", help="What it may call, comma-separated; default: all but admin.")
]
Grants = Annotated[str | None, typer.Option("--grants", help="The most its tokens may carry; default: its scopes.")]
ExpiresIn = Annotated[int | None, typer.Option("--expires-in", min=1, help="Its life in seconds; default: no end.")]


@app.command()
def create(
    name: Name,
    scopes: Scopes = None,
    grants: Grants = None,
    expires_in: ExpiresIn = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a key. Its secret is shown now and never again."""
    from dataproc.cli.administer import operator

    made = _with_keys(lambda keys: keys.create(name, _names(scopes), _names(grants), expires_in, operator()))
    _show_secret(made, output)


@app.command()
def rotate(key: Which, output: Output = Format.TABLE) -> None:
    """Give a key a new secret; the old one is refused within a second. Sessions and tokens live on."""
    from dataproc.cli.administer import operator

    async def work(keys: Keys) -> NewKey:
        return await keys.rotate((await keys.named(key)).id, operator())

    _show_secret(_with_keys(work), output)


@app.command("list")
def list_(output: Output = Format.TABLE) -> None:
    """List the keys, without their secrets."""
    rows = [plain(key) for key in _with_keys(lambda keys: keys.list())]
    as_json(rows) if output is Format.JSON else table(map(_for_people, rows), COLUMNS)


@app.command()
def revoke(key: Which, output: Output = Format.TABLE) -> None:
    """Revoke a key: its tokens stop working within a second, its sessions end."""
    from dataproc.cli.administer import operator

    async def work(keys: Keys) -> Key:
        return await keys.revoke((await keys.named(key)).id, operator())

    revoked = _with_keys(work)
    as_json(plain(revoked)) if output is Format.JSON else line(f"revoked {revoked.id}")


def _show_secret(made: NewKey, output: Format) -> None:
    row = plain(made)
    if output is Format.JSON:
        as_json(row)
    else:
        members({name: value for name, value in _for_people(row).items() if value is not None})
        line("\nThe secret is not kept anywhere: note it now.")


def _names(given: str | None) -> frozenset[str] | None:
    return None if given is None else frozenset(name.strip() for name in given.split(",") if name.strip())


def plain(value: Any) -> dict[str, Any]:
    """A record of the key table as plain JSON."""
    from dataclasses import asdict
    from datetime import datetime

    from dataproc.types import rfc3339

    def simple(member: Any) -> Any:
        if isinstance(member, datetime):
            return rfc3339(member)
        return sorted(member) if isinstance(member, set | frozenset) else member

    return {name: simple(member) for name, member in asdict(value).items()}


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    from dataproc.access.scopes import DEFAULT_SCOPES

    usual = sorted(DEFAULT_SCOPES)
    short = {name: "all but admin" if row[name] == usual else row[name] for name in ("scopes", "grants")}
    state = "revoked" if row["revoked_at"] else "expired" if _past(row["expires_at"]) else "live"
    return {**row, **short, "state": state}


def _past(moment: str | None) -> bool:
    from datetime import UTC, datetime

    from dataproc.types import rfc3339

    return moment is not None and moment <= rfc3339(datetime.now(UTC))  # this form sorts as time does


def _with_keys(work: Callable[[Keys], Awaitable[T]]) -> T:
    from dataproc.access import Keys
    from dataproc.cli.administer import with_database

    return with_database(lambda database: work(Keys(database)))
