"""`dataproc session`: what a caller does with sessions, and an operator with everybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataproc.cli.output import Format, Output, as_json, line, members, table
from dataproc.cli.problems import CommandError

if TYPE_CHECKING:
    from dataproc.cli.remote import Remote

app = typer.Typer(help="Open, look at, keep, close and restore sessions.", no_args_is_help=True)
ENDPOINT = "v1/session"
PAGE = 1000
COLUMNS = ("id", "name", "state", "reason", "created_at", "expires_in", "idle_expires_in", "running", "labels")

Id = Annotated[
    str | None, typer.Argument(metavar="[SESSION]", help="The session's id; default: that of DATAPROC_SESSION_TOKEN.")
]
Life = Annotated[int | None, typer.Option("--expires-in", min=1, help="Its life in seconds.")]
Scopes = Annotated[str | None, typer.Option("--scopes", help="What the token may do, comma-separated; default: all.")]
All = Annotated[bool, typer.Option("--all", help="Sessions of all keys; takes a key with the scope admin.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="A label; may be given again.")]


@app.command()
def create(
    expires_in: Life = None,
    idle_timeout: Annotated[
        int | None, typer.Option("--idle-timeout", min=1, help="Seconds without use after which it ends.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="An open session of that name is taken, if any.")] = None,
    labels: Labels = None,
    scopes: Scopes = None,
    output: Output = Format.TABLE,
) -> None:
    """Open a session with the key and print its token, for DATAPROC_SESSION_TOKEN."""
    asked = {
        "expires_in": expires_in,
        "idle_timeout": idle_timeout,
        "name": name,
        "labels": _map(labels) or None,
        "scopes": _names(scopes),
    }
    _show_opened(_with_key("session.open_session", asked), output)


app.command("open", hidden=True)(create)  # its first name


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option("--state", help="open, closing or ended; default: all.")] = None,
    labels: Labels = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 100,
    of_all: All = False,
    output: Output = Format.TABLE,
) -> None:
    """List the sessions of the key, the newest first."""
    found: list[dict[str, Any]] = []
    asked = {"state": state, "labels": _map(labels) or None, "cursor": None, **_across(of_all)}
    while True:
        page = _with_key("session.list_sessions", {**asked, "limit": min(PAGE, limit - len(found))})
        found += page["sessions"]
        asked["cursor"] = page["cursor"]
        if page["cursor"] is None or len(found) >= limit:
            break
    if output is Format.JSON:
        as_json(found)
    else:
        columns = ("key", *COLUMNS) if of_all else COLUMNS
        table([{**row, "labels": _pairs(row["labels"])} for row in found], columns)


@app.command("get")
def get_(session: Id = None, of_all: All = False, output: Output = Format.TABLE) -> None:
    """Show a session."""
    shown = _about("session.get_session", session, _across(of_all))
    if output is Format.JSON:
        as_json(shown)
    else:
        members({**shown, **{name: _pairs(shown[name]) for name in ("labels", "limits", "usage")}})


@app.command()
def extend(session: Id = None, expires_in: Life = None, of_all: All = False, output: Output = Format.TABLE) -> None:
    """Give a session a longer life, from now on; default: the server's usual one."""
    clocks = _about("session.extend_session", session, {"expires_in": expires_in, **_across(of_all)})
    as_json(clocks) if output is Format.JSON else members(clocks)


@app.command()
def close(
    session: Annotated[
        str | None,
        typer.Argument(metavar="[SESSION]", help="Its id, or a token of it; default: DATAPROC_SESSION_TOKEN."),
    ] = None,
    of_all: All = False,
) -> None:
    """Close a session: its directory is out of reach when this returns."""
    from dataproc.cli.remote import Remote

    remote = Remote()
    chosen = session or remote.token
    if not chosen:
        raise CommandError("no session given: name it, or set DATAPROC_SESSION_TOKEN")
    asked = {"session_id": chosen, **_across(of_all)} if session and _is_id(remote, session, of_all) else None
    if asked is not None:
        remote.rpc(ENDPOINT, "session.close_session", asked, remote.credentials(key_only=True))
    else:
        remote.token = chosen
        remote.rpc(ENDPOINT, "session.close_session", {"token": chosen}, remote.session_only())
    line("closed")


@app.command()
def restore(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")], output: Output = Format.TABLE
) -> None:
    """Bring an ended session back, with a fresh token, while its files are kept."""
    _show_opened(_with_key("session.restore_session", {"session_id": session}), output)


@app.command()
def token(session: Id = None, scopes: Scopes = None, expires_in: Life = None, output: Output = Format.TABLE) -> None:
    """Issue a further token to a session, for less or for a shorter time."""
    asked = {"scopes": _names(scopes), "expires_in": expires_in}
    _show_opened(_about("session.issue_token", session, asked), output)


def _with_key(method: str, params: dict[str, Any]) -> Any:
    from dataproc.cli.remote import Remote

    remote = Remote()
    given = {name: value for name, value in params.items() if value is not None}
    return remote.rpc(ENDPOINT, method, given, remote.credentials(key_only=True))


def _about(method: str, session: str | None, params: dict[str, Any]) -> Any:
    """A call about the session of that id, with the key; else about that of the token."""
    from dataproc.cli.remote import Remote

    if session is not None:
        return _with_key(method, {"session_id": session, **params})
    remote = Remote()
    given = {name: value for name, value in params.items() if value is not None}
    return remote.rpc(ENDPOINT, method, given, remote.session_only())


def _is_id(remote: Remote, session: str, of_all: bool) -> bool:
    """Whether the key has a session of that id: a token looks just the same."""
    if not remote.has_key:
        return False
    try:
        asked = {"session_id": session, **_across(of_all)}
        remote.rpc(ENDPOINT, "session.get_session", asked, remote.credentials(key_only=True))
    except CommandError as unknown:
        if of_all or not str(unknown).startswith(("not_found", "forbidden")):
            raise
        return False
    return True


def _across(of_all: bool) -> dict[str, Any]:
    return {"all": True} if of_all else {}


def _show_opened(opened: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        as_json(opened)
    else:
        members(opened)
        line(f"\nexport DATAPROC_SESSION_TOKEN={opened['access_token']}")


def _names(given: str | None) -> list[str] | None:
    return None if given is None else [name.strip() for name in given.split(",") if name.strip()]


def _map(given: list[str] | None) -> dict[str, str]:
    found = {}
    for pair in given or ():
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise CommandError(f"--label: {pair!r} is no K=V")
        found[name] = value
    return found


def _pairs(values: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
