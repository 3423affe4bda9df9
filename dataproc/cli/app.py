"""The commands, put together."""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from dataproc.cli import audit, calls, files, keys, modules, operators, runs, sessions
from dataproc.cli.output import Format, Output, as_json, line
from dataproc.cli.problems import CommandError, Exit, load_settings

app = typer.Typer(
    name="dataproc",
    help="Python methods by JSON-RPC, in session directories that only the session can reach.",
    epilog="Settings: DATAPROC_ variables, a .env file, and the TOML file that DATAPROC_CONFIG names.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app, name="key")
app.command("exec")(calls.exec_)
app.command("audit")(audit.audit)
app.add_typer(runs.app, name="run")
app.command("usage")(operators.usage)
app.command("drain")(operators.drain)
app.add_typer(sessions.app, name="session")
app.add_typer(files.app, name="file")
app.add_typer(modules.app, name="module")


@app.command()
def serve(
    first_key: Annotated[
        bool,
        typer.Option("--first-key", help="Make a key if there is none, show it once, and a curl line that uses it."),
    ] = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C; prints `listening on …` when ready. A second signal stops without waiting."""
    from dataproc.cli.serve import run

    run(load_settings(), first_key=first_key)


@app.command()
def doctor(output: Output = Format.TABLE) -> None:
    """Tell what is really in force: settings, sandbox layers (tried), database, storage. Exit 1 if one is missing."""
    from dataproc.cli.doctor import examine, show

    report = examine(load_settings())
    as_json(report) if output is Format.JSON else show(report)
    raise typer.Exit(Exit.OK if report["ok"] else Exit.FAILED)


@app.command()
def version(output: Output = Format.TABLE) -> None:
    """Tell the version."""
    number = installed_version("dataproc")
    as_json({"version": number}) if output is Format.JSON else line(number)


def main() -> None:
    """The entry point of the `dataproc` script."""
    try:
        app()
    except CommandError as problem:
        _fail(str(problem), problem.code)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
        sys.exit(Exit.FAILED)
    except Exception as fault:
        _unexpected(fault)


def _unexpected(fault: Exception) -> None:
    from dataproc.errors import DataprocError, InvalidParams

    if isinstance(fault, InvalidParams):
        _fail(fault.message, Exit.USAGE)
    if isinstance(fault, DataprocError):
        _fail(fault.message, Exit.UNAVAILABLE if fault.retryable else Exit.REFUSED)
    if isinstance(fault, OSError):
        _fail(str(fault), Exit.FAILED)
    from dataproc.database import NewerSchemaError, UnusableDatabase

    if isinstance(fault, NewerSchemaError | UnusableDatabase):
        _fail(str(fault), Exit.USAGE)
    if os.environ.get("DATAPROC_LOG_LEVEL", "").lower() == "debug":
        traceback.print_exc()
    _fail(f"{type(fault).__name__}: {fault} (a fault of dataproc; DATAPROC_LOG_LEVEL=debug shows where)", Exit.INTERNAL)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"dataproc: {message}\n")
    sys.exit(code)
