"""`exec`: a call from a shell."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dataproc.cli.output import Format, Output, as_json, result
from dataproc.cli.problems import CommandError

Target = Annotated[str, typer.Argument(metavar="MODULE.METHOD", help="What to run.")]
Pairs = Annotated[list[str] | None, typer.Argument(metavar="[K=V]…", help="Params: the value is JSON, else text.")]
Params = Annotated[
    str | None, typer.Option("--params", help="Params as a JSON object; @file or - reads it from there.")
]
Timeout = Annotated[float | None, typer.Option("--timeout", min=0, help="Time limit of the run in seconds.")]


def exec_(
    target: Target,
    pairs: Pairs = None,
    params: Params = None,
    timeout: Timeout = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Show on stderr what it prints and how far it is.")
    ] = False,
    submit: Annotated[bool, typer.Option("--submit", help="Do not wait: print the run's id.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Run a method and print its result.

    In the session of DATAPROC_SESSION_TOKEN; else, with DATAPROC_APIKEY and DATAPROC_SECRET, in one of its own that
    ends with the call. DATAPROC_URL names the server.
    """
    from dataproc.cli.remote import Remote

    module, dot, method = target.partition(".")
    if not (module and dot and method):
        raise CommandError(f"{target!r} is no MODULE.METHOD, like test-module.session-test")
    call: dict[str, Any] = {
        "module": module,
        "method": method,
        "params": {**_object(params), **dict(map(_pair, pairs or ()))},
    }
    if timeout is not None:
        call["timeout"] = timeout
    remote = Remote()
    if follow or submit:
        from dataproc.cli import runs

        (runs.submitted if submit else runs.followed)(remote, call, output)
        return
    answer = remote.rpc("v1/dataproc", "dataproc.exec", call, remote.credentials())
    as_json(answer) if output is Format.JSON else result(answer)


def _object(given: str | None) -> dict[str, Any]:
    if given is None:
        return {}
    try:
        text = sys.stdin.read() if given == "-" else Path(given[1:]).read_text() if given.startswith("@") else given
        value = json.loads(text)
    except (OSError, ValueError) as wrong:
        raise CommandError(f"--params: {wrong}") from None
    if not isinstance(value, dict):
        raise CommandError("--params: must be a JSON object")
    return value


def _pair(given: str) -> tuple[str, Any]:
    name, equals, text = given.partition("=")
    if not (name and equals):
        raise CommandError(f"{given!r} is no K=V")
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text
