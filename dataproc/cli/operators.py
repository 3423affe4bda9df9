"""`dataproc usage` and `dataproc drain`: an operator's calls to a running server, with a key that has `admin`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from dataproc.cli.output import Format, Output, as_json, line, table
from dataproc.cli.problems import CommandError, Exit

ENDPOINT = "v1/dataproc"
POLL = 0.5  # seconds


def usage(output: Output = Format.TABLE) -> None:
    """Show sessions and runs of each key, the busiest first."""
    rows = _call("dataproc.get_usage", {})["keys"]
    flat = [{"key": row["key"], "name": row["name"], **row["sessions"], "runs": row["runs"]} for row in rows]
    as_json(rows) if output is Format.JSON else table(flat, ("key", "name", "open", "closing", "ended", "runs"))


def drain(
    off: Annotated[bool, typer.Option("--off", help="Take it back: work as usual.")] = False,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait until nothing is under way.")] = 0,
    output: Output = Format.TABLE,
) -> None:
    """Have the server open no session and begin no run, before it is stopped; what is under way finishes.

    Meanwhile /readyz says 503, so that a balancer sends nothing new. Exit 4 if something is left after --wait.
    """
    deadline = time.monotonic() + wait
    told = _call("dataproc.drain", {"on": not off})
    while told["busy"] and time.monotonic() < deadline:
        time.sleep(POLL)
        told = _call("dataproc.drain", {"on": not off})
    if output is Format.JSON:
        as_json(told)
    else:
        line(f"{'draining' if told['draining'] else 'working as usual'}: {told['busy']} runs and transfers under way")
    if wait and told["busy"]:
        raise CommandError(f"{told['busy']} runs and transfers are still under way", Exit.UNAVAILABLE)


def _call(method: str, params: dict[str, Any]) -> Any:
    from dataproc.cli.remote import Remote

    remote = Remote()
    return remote.rpc(ENDPOINT, method, params, remote.credentials(key_only=True))
