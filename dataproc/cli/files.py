"""`file`: what lies in a session's directory, from a shell. Every transfer is held to its SHA-256."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dataproc.cli.output import Format, Output, as_json, line, table

app = typer.Typer(help="Files of the session that DATAPROC_SESSION_TOKEN names.", no_args_is_help=True)

InSession = Annotated[str, typer.Argument(metavar="PATH", help="A file of the session.")]


@app.command()
def ls(
    path: Annotated[str, typer.Argument(help="A directory of the session.")] = "",
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="With all below it.")] = False,
    glob: Annotated[
        str | None, typer.Option("--glob", help="Only names, or with a `/` in it paths, that match.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """List a directory."""
    from dataproc.cli.transfer import Transfer

    entries = Transfer().listing(path, recursive, glob)
    as_json(entries) if output is Format.JSON else table(entries, ("path", "type", "size", "modified"))


@app.command()
def cat(path: InSession) -> None:
    """Write a file to stdout."""
    from dataproc.cli.transfer import Transfer

    Transfer().copy_out(path, sys.stdout.buffer)


@app.command("get")
def fetch(
    path: Annotated[str, typer.Argument(help="A file of the session, or a directory, that ends in `/`.")],
    target: Annotated[
        Path | None, typer.Argument(help="A local file or directory, or - for stdout; default: the same name here.")
    ] = None,
    archive: Annotated[
        str | None, typer.Option("--archive", metavar="zip|tar.gz", help="A directory as one archive.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Download a file, whole or not at all."""
    from dataproc.cli.transfer import Transfer

    transfer = Transfer()
    if str(target) == "-":
        transfer.copy_out(path, sys.stdout.buffer, archive)
        return
    name = path.rstrip("/").rpartition("/")[2] or "session"
    name = f"{name}.{archive}" if archive else name
    target = target or Path(name)
    if target.is_dir():
        target /= name
    _tell(str(target), transfer.get(path, target, archive), output)


@app.command()
def put(
    source: Annotated[Path, typer.Argument(help="A local file, or - for stdin.", dir_okay=False, allow_dash=True)],
    path: Annotated[str | None, typer.Argument(help="Where in the session; default: the file's name.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Upload a file, whole or not at all; what was there is replaced, and directories on the way are made."""
    from dataproc.cli.problems import CommandError
    from dataproc.cli.transfer import Transfer

    if str(source) == "-":
        if path is None:
            raise CommandError("where to? name the PATH in the session for what comes from stdin")
        _tell(path, Transfer().put_stream(sys.stdin.buffer, path), output)
        return
    if not source.is_file():
        raise CommandError(f"{source}: there is no such file")
    where = f"{path}{source.name}" if path and path.endswith("/") else path or source.name
    _tell(where, Transfer().put(source, where), output)


@app.command("rm")
def remove(
    path: InSession,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="A directory, with all below it.")] = False,
) -> None:
    """Delete a file."""
    from dataproc.cli.transfer import Transfer

    Transfer().delete(path, recursive)


def _tell(where: str, done: tuple[int, str], output: Format) -> None:
    size, sha256 = done
    if output is Format.JSON:
        as_json({"path": where, "size": size, "sha256": sha256})
    else:
        line(f"{where}: {size} bytes, sha256 {sha256}")
