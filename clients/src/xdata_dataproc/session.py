"""`Client`: the friendly face. It opens sessions; a `Session` runs methods and has files."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from dataproc_client.errors import DataprocError, Forbidden, SessionEnded, Unauthorized
from dataproc_client.rpc import Endpoint, credentials
from dataproc_client.transport import DEFAULT_TIMEOUT, Transport
from xdata_dataproc.client import call_of, execute
from xdata_dataproc.files import Files
from xdata_dataproc.runs import Run, submit

DEFAULT_URL = "http://127.0.0.1:8000"
SESSION_PATH = "/api/v1/session/jsonrpc"
DATAPROC_PATH = "/api/v1/dataproc/jsonrpc"
FILES_PATH = "/api/v1/dataproc/files/"


class Client:
    """A server, and who calls it. What is not given comes from the environment.

    `DATAPROC_URL`, `DATAPROC_APIKEY`, `DATAPROC_SECRET`, `DATAPROC_SESSION_TOKEN`. `timeout` is seconds without a
    byte from the server. Threads may share it; a forked child may go on using it.
    """

    def __init__(
        self,
        url: str | None = None,
        apikey: str | None = None,
        secret: str | None = None,
        *,
        session_token: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        env = os.environ.get
        self.url = url or env("DATAPROC_URL") or DEFAULT_URL
        self._key = credentials(apikey or env("DATAPROC_APIKEY"), secret or env("DATAPROC_SECRET"))
        self._token = session_token or env("DATAPROC_SESSION_TOKEN")
        self._transport = Transport(self.url, timeout, ssl_context)
        self._dataproc = self._endpoint(DATAPROC_PATH, self._key or credentials(session_token=self._token))

    def open_session(self, expires_in: int | None = None, **ours: Any) -> Session:
        """Open a session of `expires_in` seconds (None: 30 days). As a context manager it is closed on leaving.

        `ours`: the contract's further members (`name`, `labels`, `idle_timeout`, `scopes`).
        """
        if not self._key:
            raise Unauthorized(
                "opening a session takes a key: give apikey and secret, or set DATAPROC_APIKEY and DATAPROC_SECRET"
            )
        asked = {} if expires_in is None else {"expires_in": expires_in}
        opened = self._endpoint(SESSION_PATH, self._key).call("session.open_session", {**asked, **ours})
        return Session(self, opened["access_token"], opened)

    def session(self, token: str | None = None) -> Session:
        """The session of a token that was got earlier; None takes the client's own."""
        if not (token or self._token):
            raise Unauthorized("no token: give one, or set DATAPROC_SESSION_TOKEN")
        return Session(self, token or self._token or "", {})

    def exec(self, method: str, params: Mapping[str, Any] | None = None, /, **named: Any) -> Any:
        """Run `"module.method"` once: as `Session.exec`, with the key in a fresh session that ends with the call."""
        return run(self._dataproc, method, params, named)

    def submit(self, method: str, params: Mapping[str, Any] | None = None, /, **named: Any) -> Run:
        """As `exec`, without waiting; with the key the run has a session of its own, which ends with it."""
        return begin(self._dataproc, method, params, named)

    def run(self, run_id: str) -> Run:
        """A run that was submitted earlier, by its id."""
        return Run(self._dataproc, run_id)

    def modules(self) -> list[dict[str, Any]]:
        """Name, version, description and state of each module that the caller may use."""
        return list(self._dataproc.call("dataproc.list_modules", {}, repeatable=True)["modules"])

    def module(self, name: str) -> dict[str, Any]:
        """One module with the JSON Schemas of its methods' params and results."""
        return dict(self._dataproc.call("dataproc.describe_module", {"module": name}, repeatable=True))

    def version(self) -> str:
        """The server's version."""
        return str(self._dataproc.call("dataproc.get_server_version", {}, repeatable=True))

    def close(self) -> None:
        """Close the kept connections. Sessions stay open on the server."""
        self._transport.close()

    def _endpoint(self, path: str, headers: Mapping[str, str]) -> Endpoint:
        return Endpoint(self._transport, self._transport.path + path, headers)

    def _end(self, token: str) -> None:
        """End a session: with the key, since a token may lack the scope; else with the token itself."""
        own = credentials(session_token=token)
        for headers in [self._key, own] if self._key else [own]:
            try:
                self._endpoint(SESSION_PATH, headers).call("session.close_session", {"token": token}, repeatable=True)
            except Forbidden:
                if headers is own:
                    raise
            except SessionEnded:
                return
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"


class Session:
    """A session: `exec` runs methods in it, `files` is its directory. Got from `Client`."""

    def __init__(self, client: Client, token: str, opened: Mapping[str, Any]) -> None:
        self.token = token
        self.expires_in: int | None = opened.get("expires_in")
        self._id: str | None = opened.get("session_id")
        self._client = client
        headers = credentials(session_token=token)
        self._dataproc = client._endpoint(DATAPROC_PATH, headers)
        self._session = client._endpoint(SESSION_PATH, headers)
        self.files = Files(client._transport, client._transport.path + FILES_PATH, headers)

    @property
    def id(self) -> str:
        """The session's id, which is not its token; asked for when it is not known yet."""
        if self._id is None:
            self._id = str(self.info()["session_id"])
        return self._id

    def exec(self, method: str, params: Mapping[str, Any] | None = None, /, **named: Any) -> Any:
        """Run `"module.method"` with the named params, and give what it returned (True for nothing).

        Also by name: `timeout` (seconds that the run may take), `input`, `output`, `idempotency_key`. A param of the
        method that has one of these names goes into the mapping `params`.
        """
        return run(self._dataproc, method, params, named)

    def submit(self, method: str, params: Mapping[str, Any] | None = None, /, **named: Any) -> Run:
        """As `exec`, without waiting: a `Run`, to come back to even after this program has ended."""
        return begin(self._dataproc, method, params, named)

    def run(self, run_id: str) -> Run:
        """A run that was submitted earlier, by its id."""
        return Run(self._dataproc, run_id)

    def info(self) -> dict[str, Any]:
        """What the server knows of the session: id, state, times, usage."""
        return dict(self._session.call("session.get_session", {}, repeatable=True))

    def close(self) -> None:
        """End the session and delete its directory; a session that has ended before is no error."""
        self._client._end(self.token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except DataprocError as error:
            if raised is None:
                raise
            raised.add_note(f"closing the session failed too: {error}")

    def __repr__(self) -> str:
        return f"Session(id={self._id!r})"


OURS = ("timeout", "idempotency_key")


def run(endpoint: Endpoint, name: str, params: Mapping[str, Any] | None, named: dict[str, Any]) -> Any:
    """Sort the named arguments into those of the call and those of the method, and run it."""
    call, ours = _sorted(name, params, named)
    return execute(endpoint, **call, ours=ours)


def begin(endpoint: Endpoint, name: str, params: Mapping[str, Any] | None, named: dict[str, Any]) -> Run:
    """The same without waiting for the end."""
    call, ours = _sorted(name, params, named)
    return submit(endpoint, call_of(**call), ours)


def _sorted(
    name: str, params: Mapping[str, Any] | None, named: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    module, dot, method = name.partition(".")
    if not (module and dot and method):
        raise ValueError(f"not of the form 'module.method': {name!r}")
    ours = {known: named.pop(known, None) for known in OURS}
    given, wanted = named.pop("input", None), named.pop("output", None)
    params = {**(params or {}), **named}
    return {"module": module, "method": method, "input": given, "output": wanted, "params": params}, ours
