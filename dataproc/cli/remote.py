"""The verbs that call a server, over HTTP, as any client does. Who calls and where is read from the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from dataproc import headers
from dataproc.cli.problems import CommandError, Exit

RUNS = "/api/v1/dataproc/runs/"


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None  # the credentials are for this server alone


def _opener(host: str) -> OpenerDirector:
    try:
        near = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        near = False
    return build_opener(_NoRedirects, *([ProxyHandler({})] if near else []))


class Remote:
    """A server, and the credentials to call it with: `DATAPROC_SESSION_TOKEN`, or `DATAPROC_APIKEY` and `_SECRET`."""

    def __init__(self) -> None:
        self.url = os.environ.get("DATAPROC_URL", "http://127.0.0.1:8000").rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CommandError(f"DATAPROC_URL: {self.url!r} is no http:// or https:// address")
        self.token = os.environ.get("DATAPROC_SESSION_TOKEN")
        self._key = {
            headers.API_KEY: os.environ.get("DATAPROC_APIKEY"),
            headers.SECRET: os.environ.get("DATAPROC_SECRET"),
        }
        self._opener = _opener(parts.hostname)

    @property
    def has_key(self) -> bool:
        """Whether there is a key to call with."""
        return all(self._key.values())

    def credentials(self, *, key_only: bool = False) -> dict[str, str]:
        """The headers that say who calls; the token wins where there is one and it will do."""
        if self.token and not key_only:
            return {headers.SESSION_TOKEN: self.token}
        if missing := [name for name, value in self._key.items() if not value]:
            names = " and ".join(f"DATAPROC_{name.upper()}" for name in missing)
            raise CommandError(f"{names} not set: make a key on the server with `dataproc key create --name me`")
        return {name: value for name, value in self._key.items() if value}

    def session_only(self) -> dict[str, str]:
        """The headers of the session; files belong to one."""
        if not self.token:
            raise CommandError(
                "DATAPROC_SESSION_TOKEN not set: open a session with `dataproc session open` and export its token"
            )
        return {headers.SESSION_TOKEN: self.token}

    def request(self, method: str, path: str, who: dict[str, str], body: Any = None, **more: str) -> Any:
        """The open response; a refusal is a `CommandError` with the server's own words."""
        request = Request(self.url + path, data=body, method=method, headers={**who, **more})  # noqa: S310 - http(s), checked above
        try:
            return self._opener.open(request)
        except HTTPError as refused:
            with refused:
                raise _refusal(refused.code, refused.read()) from None
        except (URLError, HTTPException, OSError) as lost:
            cause = getattr(lost, "reason", lost)
            reason = getattr(cause, "strerror", None) or cause or type(lost).__name__
            message = (
                f"no answer from {self.url}: {reason}. Is it running (`dataproc serve`), and is DATAPROC_URL right?"
            )
            raise CommandError(message, Exit.UNAVAILABLE) from None

    def rpc(self, endpoint: str, method: str, params: dict[str, Any], who: dict[str, str]) -> Any:
        """The result of one JSON-RPC call to `endpoint` (`v1/dataproc`)."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        path = f"/api/{endpoint}/jsonrpc"
        with self.request("POST", path, who, body, **{"Content-Type": "application/json"}) as response:
            text = response.read()
        answer = _json(text)
        if "error" in answer:
            raise problem(answer["error"])
        if "result" not in answer:
            raise CommandError(f"{self.url} does not answer as a dataproc server does", Exit.UNAVAILABLE)
        return answer["result"]

    def events(self, run: str, after: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Number, kind and data of the events of a run after that number, as they come."""
        more = {"Last-Event-ID": str(after)}
        with self.request("GET", f"{RUNS}{quote(run)}/events", self.credentials(), None, **more) as response:
            members: dict[str, str] = {}
            try:
                for raw in response:
                    text = raw.decode().rstrip("\r\n")
                    name, colon, value = text.partition(": ")
                    if colon and name:
                        members[name] = value
                    elif not text and "id" in members:
                        yield int(members["id"]), members["event"], json.loads(members["data"])
                        members = {}
            except (OSError, HTTPException) as lost:
                raise CommandError(f"the connection to {self.url} broke off", Exit.UNAVAILABLE) from lost


def _json(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CommandError("what answers there is no dataproc server: is DATAPROC_URL right?", Exit.UNAVAILABLE)
    return value


def _refusal(status: int, text: bytes) -> CommandError:
    try:
        error = json.loads(text)["error"]
        return problem(error)
    except (ValueError, KeyError, TypeError):
        return CommandError(f"HTTP {status}: {text[:200].decode(errors='replace').strip()}", Exit.REFUSED)


def problem(error: dict[str, Any]) -> CommandError:
    """What a user is told of an error that the server answered."""
    data = error.get("data") or {}
    name, message = data.get("name", "error"), error.get("message", "")
    details = "".join(
        f"\n  {'.'.join(map(str, each['loc']))}: {each['msg']}"
        for each in data.get("errors", ())
        if each["msg"] not in message
    )
    trace = f"\n{data['traceback'].rstrip()}" if data.get("traceback") else ""
    return CommandError(f"{name}: {message}{details}{trace}", _exit_code(name, data))


def _exit_code(name: str, data: dict[str, Any]) -> int:
    if name.startswith("exec_"):
        code = data.get("exit_code")
        return code if isinstance(code, int) and 0 < code < 126 else Exit.FAILED
    if data.get("retryable"):
        return Exit.UNAVAILABLE
    return Exit.USAGE if name == "invalid_params" else Exit.REFUSED
