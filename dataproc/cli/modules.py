"""`dataproc module`: look at modules, make one, check it, try it, and give it what it needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from dataproc.cli.output import Format, Output, as_json, line, table
from dataproc.cli.problems import CommandError, Exit, load_settings

app = typer.Typer(help="Look at modules, make one, check it, try it, give it what it needs.", no_args_is_help=True)

Where = Annotated[Path, typer.Argument(metavar="PATH", help="The module's folder, or its name in the modules folder.")]
Local = Annotated[bool, typer.Option("--local", help="Look at the modules folder, although a key is set.")]


@app.command("list")
def list_(local: Local = False, output: Output = Format.TABLE) -> None:
    """List the modules: of the server, if a key or a token is set, else of the modules folder, on this machine."""
    if not local and _has_credentials():
        rows = _ask("dataproc.list_modules", {})
    else:
        from dataproc.cli.workshop import listed

        rows = listed(load_settings())
    if output is Format.JSON:
        as_json(rows)
        return
    table(rows, ("name", "version", "state", "methods", "description"))
    for row in rows:
        if why := row.get("error") or row.get("reload_error"):
            line(f"\n{row['name']}: {why}")


@app.command()
def describe(
    name: Annotated[str, typer.Argument(help="The module's name.")],
    local: Local = False,
    output: Output = Format.TABLE,
) -> None:
    """Show a module's methods with their schemas; from where `list` does."""
    if not local and _has_credentials():
        told = _ask("dataproc.describe_module", {"module": name})
    else:
        from dataproc.cli.workshop import described

        told = described(load_settings(), name)
    as_json(told) if output is Format.JSON else _show(told)


@app.command()
def check(path: Where, output: Output = Format.TABLE) -> None:
    """Import a module in the sandbox, print its schemas, refuse ambiguous types. Exit 1 where something is wrong."""
    from dataproc.cli.workshop import checked

    report = checked(_folder(path))
    if output is Format.JSON:
        as_json(report)
    else:
        _show_check(report)
    raise typer.Exit(Exit.OK if report["ok"] else Exit.FAILED)


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(help="Its name; or a path that ends in it. Default place: the modules folder.")
    ],
    script: Annotated[bool, typer.Option("--script", help="Make an xData module of scripts instead.")] = False,
) -> None:
    """Make a module: folder, README, a method, and a test that passes at once."""
    from dataproc.cli.scaffold import create, create_script

    folder = Path(name) if "/" in name else load_settings().modules_dir / name
    for made in (create_script if script else create)(folder):
        line(str(made))
    line(f"\nNext: pytest {folder}, dataproc module check {folder}, dataproc module dev {folder}")


@app.command()
def dev(
    path: Where,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 0,
) -> None:
    """Serve one module on a temporary folder until Ctrl-C, and load it again when it changes.

    Prints what to export, so that `dataproc exec` calls it from another shell, in a session that lasts as long.
    """
    from dataproc.cli.dev import run

    run(_folder(path), port)


@app.command()
def install(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]…", help="Folders or names; default all.")
    ] = None,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Take the newest versions, whatever the lock says.")
    ] = False,
) -> None:
    """Make the environments of modules that have requirements.txt or pyproject.toml, pinned with hashes, with uv.

    The lock is kept in the module's folder. What a running server has is not disturbed; it takes the new one up.
    """
    from dataproc.cli.workshop import installed

    settings = load_settings()
    folders = [_folder(path) for path in paths or ()]
    failed = False
    for name, told, ok in installed(settings, folders, upgrade):
        failed = failed or not ok
        line(f"{name}: {told}")
    if failed:
        raise CommandError("not every environment could be made; the other modules are as they were", Exit.FAILED)


def _folder(path: Path) -> Path:
    """The folder that is meant; CommandError where there is none."""
    named = load_settings().modules_dir / path
    found = next((each for each in (path, named) if each.is_dir()), None)
    if found is None:
        raise CommandError(f"there is no folder {path}, and none of that name in {named.parent}")
    return found.absolute()


def _has_credentials() -> bool:
    known = os.environ
    return bool(known.get("DATAPROC_SESSION_TOKEN") or (known.get("DATAPROC_APIKEY") and known.get("DATAPROC_SECRET")))


def _ask(method: str, params: dict[str, Any]) -> Any:
    from dataproc.cli.remote import Remote

    remote = Remote()
    return remote.rpc("v1/dataproc", method, params, remote.credentials())


def _show_check(report: dict[str, Any]) -> None:
    if "error" in report:
        line(f"{report['name']} is broken: {report['error']}")
        return
    _show(report)
    for problem in report["problems"]:
        line(f"ambiguous: {problem}")
    for note in report["notes"]:
        line(f"note: {note}")
    line("\nok" if report["ok"] else "\nnot ok: see above")


def _show(told: dict[str, Any]) -> None:
    line(f"{told['name']} {told.get('version', '')}: {told.get('description', '')}".rstrip(": "))
    for method in told["methods"]:
        line(f"\n{told['name']}.{method['name']}: {method.get('description', '').partition(chr(10))[0]}")
        as_json({name: method[name] for name in ("params", "result") if method.get(name) is not None})
