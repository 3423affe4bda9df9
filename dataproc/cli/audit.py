"""`dataproc audit`: who did what to keys, tokens and sessions."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataproc.cli.output import Format, Output, as_json, line, table
from dataproc.cli.problems import CommandError

if TYPE_CHECKING:
    from dataproc.database import Database
    from dataproc.database.audit import Line, Wanted

COLUMNS = ("at", "event", "by", "key", "session_id", "client", "details")
POLL = 0.5  # seconds
_AGO = re.compile(r"([0-9]+)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Key = Annotated[str | None, typer.Option("--key", help="Of that key, by id or name.")]
Session = Annotated[str | None, typer.Option("--session", help="Of that session.")]
Event = Annotated[str | None, typer.Option("--event", help="Of that kind, like session_opened.")]
By = Annotated[str | None, typer.Option("--by", help="Done by that key, token or operator, like token:….")]
Since = Annotated[str | None, typer.Option("--since", help="From then on: 15m, 2h, 7d, or an RFC 3339 time.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="The newest so many.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on, and show lines as they come.")]


def audit(
    key: Key = None,
    session: Session = None,
    event: Event = None,
    by: By = None,
    since: Since = None,
    limit: Limit = 100,
    follow: Follow = False,
    output: Output = Format.TABLE,
) -> None:
    """Show the audit log: who opened, used, narrowed, revoked, closed what, when, and from where."""
    from dataproc.cli.administer import with_database

    from_when = None if since is None else _moment(since)

    async def work(database: Database) -> None:
        from dataproc.access import Keys
        from dataproc.database.audit import Wanted

        key_id = None if key is None else (await Keys(database).named(key)).id
        wanted = Wanted(key_id, session, event, by, from_when, limit=limit)
        lines = await database.audit.find(wanted)
        if follow:
            await _follow(database, wanted, lines, output)
        else:
            rows = [_row(each) for each in lines]
            as_json(rows) if output is Format.JSON else table(map(_for_people, rows), COLUMNS)

    with_database(work)


async def _follow(database: Database, wanted: Wanted, lines: list[Line], output: Format) -> None:
    """Print lines one by one, until Ctrl-C."""
    from dataclasses import replace

    after = 0
    while True:
        for each in lines:
            row, after = _row(each), each.id
            shown = json.dumps(row) if output is Format.JSON else "  ".join(str(v) for v in _for_people(row).values())
            line(shown)
        await asyncio.sleep(POLL)
        lines = await database.audit.find(replace(wanted, after=after))


def _row(each: Line) -> dict[str, Any]:
    from dataproc.types import rfc3339

    return {
        "id": each.id,
        "at": rfc3339(each.at),
        "event": each.event,
        "by": each.actor,
        "key": each.key,
        "session_id": each.session,
        "client": each.client,
        "request_id": each.request_id,
        "details": each.details,
    }


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    details = " ".join(f"{name}={value}" for name, value in row["details"].items() if value is not None)
    return {name: details if name == "details" else row[name] for name in COLUMNS}


def _moment(given: str) -> datetime:
    if ago := _AGO.fullmatch(given):
        return datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise CommandError(f"--since: {given!r} is neither like 2h nor a time like 2026-01-31T09:30:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
