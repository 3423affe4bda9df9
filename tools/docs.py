"""Write the tables of docs/ that the code itself knows: settings, errors, RPC methods, commands.

`python -m tools.docs` writes them; with `--check` it only says which are stale, and fails.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from dataproc import settings as settings_module
from dataproc.errors import DataprocError
from dataproc.settings import Settings

ROOT = Path(__file__).parent.parent
NOTE = "<!-- Written by `make docs` from the code. Do not edit. -->"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    titles = list(header)
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [titles, ["---"] * len(titles), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# ------------------------------------------------------------------------------------------------------------- settings

_UNITS = {
    "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")),
    "seconds": ((86400, "d"), (3600, "h"), (60, "min")),
}


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    value = field.default
    if value is PydanticUndefined:
        return ""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{value}`{_in_words(value, field.metadata)}"
    return f"`{value}`"


def _in_words(value: float, metadata: list[Any]) -> str:
    units = next((_UNITS[each] for each in metadata if isinstance(each, str) and each in _UNITS), ())
    return next((f" ({value // unit:g} {word})" for unit, word in units if value >= unit and value % unit == 0), "")


def _sections() -> Iterator[tuple[str, list[str]]]:
    """The groups that the comments of settings.py make."""
    source = Path(settings_module.__file__).read_text()
    title = ""
    names: list[str] = []
    for comment, name in re.findall(r"^    (?:# (.+)|(\w+): .*Field\(.*)$", source, re.MULTILINE):
        if comment:
            if names:
                yield title, names
            title, names = comment, []
        elif name in Settings.model_fields:
            names.append(name)
    yield title, names


def settings() -> str:
    """docs/settings.md."""
    parts = [
        "# Settings",
        NOTE,
        "Each is an environment variable; or a line of `.env`; or, for what is better not in an environment, the "
        "content of a file that `<name>_FILE` names; or a key of the TOML file that `DATAPROC_CONFIG` names, in lower "
        "case without the prefix. The first of these that has it wins. Durations are seconds, sizes bytes. "
        "`dataproc doctor` shows what is in force.",
    ]
    for title, names in _sections():
        rows = (
            (f"`DATAPROC_{name.upper()}`", _default(name), Settings.model_fields[name].description or "")
            for name in names
        )
        parts += [f"## {title.capitalize()}", table(("variable", "default", "what"), rows)]
    secret = [
        n for n, f in Settings.model_fields.items() if SecretStr in getattr(f.annotation, "__args__", (f.annotation,))
    ]
    hidden = ", ".join(f"`DATAPROC_{name.upper()}`" for name in secret)
    return "\n\n".join([*parts, f"Never shown, by no command and in no log: the values of {hidden}."])


# --------------------------------------------------------------------------------------------------------------- errors


def errors() -> str:
    """docs/errors.md."""
    told = [kind for kind in DataprocError.__subclasses__() if kind.__module__ == DataprocError.__module__]
    kinds = sorted(told, key=lambda kind: (kind.code > -32600, -kind.code))
    rows = (
        (
            f"`{kind.code}`",
            f"`{kind.name}`",
            str(kind.http_status) if kind.http_status else "",
            "yes" if kind.retryable else "no",
            " ".join((kind.__doc__ or "").split()),
        )
        for kind in kinds
    )
    return "\n\n".join(
        [
            "# Errors",
            NOTE,
            "A JSON-RPC answer is HTTP 200, and its `error` holds `code`, `message` and `data`. `data` always has "
            "`name`, `retryable` and `request_id`, and `run_id` once a run began. File routes answer "
            '`{"error": {"code", "message", "data"}}` with the status of this table. A request that is refused as a '
            "whole (credentials, size, a full server) carries its own status on the JSON-RPC endpoints too, with `id` "
            "null.",
            table(("code", "name", "status of file routes", "retry helps", "when, and what `data` adds"), rows),
        ]
    )


# ---------------------------------------------------------------------------------------------------------- RPC methods


def _type(schema: Any) -> str:
    if not isinstance(schema, dict) or not schema:
        return "anything"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    kind = schema.get("type", " or ".join(map(_type, schema.get("anyOf", ()))) or "anything")
    return " or ".join(kind) if isinstance(kind, list) else kind


def rpc() -> str:
    """docs/rpc.md."""
    from dataproc.web.app import create_app
    from dataproc.web.params import REQUIRED

    app: Any = create_app(cast("Any", SimpleNamespace(settings=Settings(_env_file=None), database=None)))
    paths: dict[str, list[str]] = {}
    methods = {}
    for path, endpoint in app.endpoints.items():
        for name, method in endpoint.methods.items():
            paths.setdefault(name, []).append(path)
            methods[name] = method
    parts = [
        "# RPC methods",
        NOTE,
        "JSON-RPC 2.0 by POST. `rpc.discover` answers an OpenRPC document of what the caller may use on that endpoint; "
        "`/openrpc.json` has all of it, `/openapi.json` the file service and the probes. Params by position are in the "
        "order of the tables; those marked *by name* are taken by name only.",
    ]
    for name in sorted(methods):
        method = methods[name]
        parts += [f"## `{name}`", method.summary, " ".join(_facts(method, paths[name]))]
        if method.signature.params:
            rows = (
                (
                    f"`{param.name}`",
                    _type(param.schema) + (", *by name*" if param.by_name else ""),
                    "required" if param.default is REQUIRED else f"`{json.dumps(param.default)}`",
                    param.summary,
                )
                for param in method.signature.params
            )
            parts.append(table(("param", "type", "default", "what"), rows))
    return "\n\n".join(parts)


def _facts(method: Any, paths: list[str]) -> Iterator[str]:
    yield f"At {', '.join(f'`{path}`' for path in paths)}."
    if method.needs:
        yield f"Needs `{method.needs}`."
    yield f"Result: {_type(method.result)}."
    if method.errors:
        yield f"Errors of its own: {', '.join(f'`{kind.name}`' for kind in method.errors)}."


# ------------------------------------------------------------------------------------------------------------- commands


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name in sorted(children):
        yield from _commands(children[name], f"{path} {name}")


def _params(command: Any) -> Iterator[tuple[str, str, str]]:
    for param in command.params:
        if param.name == "help":
            continue
        option = param.param_type_name == "option"
        name = ", ".join(param.opts) if option else param.metavar or param.name.upper()
        default = "required" if param.required else "" if param.default in (None, False, "") else f"`{param.default!s}`"
        yield f"`{name}`", default, param.help or ""


def commands() -> str:
    """docs/cli.md."""
    import typer.main

    from dataproc.cli.app import app
    from dataproc.cli.problems import Exit

    meanings = {
        Exit.OK: "done",
        Exit.FAILED: "the method failed (one that ended by `sys.exit(n)` gives n), or `doctor` found something missing",
        Exit.USAGE: "wrong arguments, params or settings",
        Exit.REFUSED: "refused: credentials, scopes, a session that is over, nothing of that name",
        Exit.UNAVAILABLE: "no answer, or the server asks to try again later",
        Exit.INTERNAL: "a fault of dataproc",
        Exit.INTERRUPTED: "Ctrl-C",
    }
    parts = [
        "# Commands",
        NOTE,
        "`serve`, `key` and `doctor` read the settings of the server (settings.md) and work beside one that runs. "
        "`exec`, `session` and `file` are clients: `DATAPROC_URL` (default `http://127.0.0.1:8000`) says where, "
        "`DATAPROC_SESSION_TOKEN`, or `DATAPROC_APIKEY` and `DATAPROC_SECRET`, say who.",
    ]
    for path, command in _commands(typer.main.get_command(app), "dataproc"):
        parts += [f"## `{path}`", re.sub(r"\s*\n(?!\n)\s*", " ", (command.help or "").strip())]
        if rows := list(_params(command)):
            parts.append(table(("argument", "default", "what"), rows))
    return "\n\n".join(
        [*parts, "## Exit codes", table(("code", "when"), ((str(int(c)), m) for c, m in meanings.items()))]
    )


# ----------------------------------------------------------------------------------------------------------------- main

PAGES = {"settings.md": settings, "errors.md": errors, "rpc.md": rpc, "cli.md": commands}


def stale(folder: Path) -> list[str]:
    """Pages that are not what the code says now."""
    return [
        name
        for name, page in PAGES.items()
        if not (folder / name).exists() or (folder / name).read_text() != page() + "\n"
    ]


def main() -> None:
    """Write the pages, or check them."""
    for name in [name for name in os.environ if name.startswith("DATAPROC_")]:
        del os.environ[name]  # the pages tell of defaults
    folder = ROOT / "docs"
    if "--check" in sys.argv[1:]:
        if old := stale(folder):
            raise SystemExit(f"docs: not current: {', '.join(old)}: run `make docs` and commit what it writes")
        return
    for name, page in PAGES.items():
        (folder / name).write_text(page() + "\n")


if __name__ == "__main__":
    main()
