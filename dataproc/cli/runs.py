"""`run`: what became of runs, what they print, and how to end them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from dataproc.cli.output import Format, Output, as_json, line, members, result, table
from dataproc.cli.problems import CommandError, Exit

if TYPE_CHECKING:
    from dataproc.cli.remote import Remote

app = typer.Typer(help="Look at runs, follow them and end them.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
COLUMNS = ("run_id", "status", "module", "method", "created_at", "duration", "session_id")
PIECE = 2**20  # bytes of a log in one call
TRIES = 5  # to come back to a stream that broke off
PAUSE = 1.0  # seconds between them


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option("--status", help="Only those in this state.")] = None,
    module: Annotated[str | None, typer.Option("--module", help="Only those of this module.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    output: Output = Format.TABLE,
) -> None:
    """List runs, newest first: of the session of the token, or of all sessions of the key."""
    remote = _remote()
    asked: dict[str, Any] = {"status": status, "module": module}
    found: list[dict[str, Any]] = []
    while len(found) < limit:
        page = _call(remote, "list_runs", {**asked, "limit": min(1000, limit - len(found))})
        found += page["runs"]
        if not (cursor := page["cursor"]):
            break
        asked["cursor"] = cursor
    as_json(found) if output is Format.JSON else table(found, COLUMNS)


@app.command("get")
def get_(
    run: RunId,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show a run: its state, times, result or error, changes and use."""
    remote = _remote()
    shown = _ended(remote, run) if wait else _call(remote, "get_run", {"run_id": run})
    as_json(shown) if output is Format.JSON else members(shown)


@app.command()
def logs(
    run: RunId,
    follow_it: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")] = False,
) -> None:
    """Print what a run printed."""
    remote = _remote()
    if follow_it:
        with _shown(sys.stdout) as view:
            follow(remote, run, view)
        return
    offset = 0
    while True:
        piece = _call(remote, "get_log", {"run_id": run, "offset": offset, "limit": PIECE})
        sys.stdout.write(piece["text"])
        if not piece["text"]:
            break
        offset = piece["offset"]
    sys.stdout.flush()


@app.command()
def cancel(run: RunId) -> None:
    """End a run; one that has ended stays as it is."""
    _call(_remote(), "cancel_run", {"run_id": run})
    line("cancelled")


def submitted(remote: Remote, call: dict[str, Any], output: Format) -> None:
    """Submit a call and print the run's id."""
    told = remote.rpc("v1/dataproc", "dataproc.submit", call, remote.credentials())
    as_json(told) if output is Format.JSON else line(told["run_id"])


def followed(remote: Remote, call: dict[str, Any], output: Format) -> None:
    """Submit a call, show what it prints and how far it is on stderr, and print its result as `exec` does."""
    from dataproc.cli.remote import problem

    run = remote.rpc("v1/dataproc", "dataproc.submit", call, remote.credentials())["run_id"]
    try:
        with _shown(sys.stderr) as view:
            follow(remote, run, view)
    except KeyboardInterrupt:
        sys.stderr.write(f"\nthe run goes on: dataproc run logs -f {run}, or dataproc run cancel {run}\n")
        raise
    ended = _ended(remote, run)
    if ended["error"] is not None:
        raise problem(ended["error"])
    as_json(ended["result"]) if output is Format.JSON else result(ended["result"])


class View(Protocol):
    """Where a run is shown."""

    def text(self, text: str) -> None:
        """What it printed."""
        ...

    def progress(self, fraction: float, message: str) -> None:
        """How far it is."""
        ...


def follow(remote: Remote, run: str, view: View) -> None:
    """Show a run until it has ended; comes back to it where the connection breaks."""
    last, tries = 0, 0
    while True:
        try:
            for number, kind, data in remote.events(run, last):
                last, tries = number, 0
                if kind == "log":
                    view.text(data["text"])
                elif kind == "progress":
                    view.progress(data["fraction"], data["message"])
                elif data["status"] not in ("queued", "running"):
                    return
        except CommandError as error:
            tries += 1
            if error.code != Exit.UNAVAILABLE or tries > TRIES:
                raise
        time.sleep(PAUSE)


class _Plain:
    """Output as it comes; progress is not shown."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def text(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def progress(self, fraction: float, message: str) -> None:
        return


class _Bar:
    """The same above a bar."""

    def __init__(self, bar: Any, stream: Any) -> None:
        self._bar, self._stream = bar, stream
        self._task = bar.add_task("", total=1.0, visible=False)

    def text(self, text: str) -> None:
        from rich.text import Text

        self._bar.console.print(Text(text.rstrip("\n")))

    def progress(self, fraction: float, message: str) -> None:
        self._bar.update(self._task, completed=fraction, description=message, visible=True)


@contextmanager
def _shown(stream: Any) -> Iterator[View]:
    if not sys.stderr.isatty() or not stream.isatty():
        yield _Plain(stream)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    class Message(TextColumn):
        def render(self, task: Any) -> Any:
            return super().render(task) if not task.description else escape(task.description)

    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), Message("{task.description}"))
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        yield _Bar(bar, stream)


def _remote() -> Remote:
    from dataproc.cli.remote import Remote

    return Remote()


def _call(remote: Remote, method: str, params: dict[str, Any]) -> Any:
    return remote.rpc("v1/dataproc", f"dataproc.{method}", params, remote.credentials())


def _ended(remote: Remote, run: str) -> dict[str, Any]:
    while True:
        found: dict[str, Any] = _call(remote, "wait_run", {"run_id": run, "timeout": 60})
        if found["ended_at"] is not None:
            return found
