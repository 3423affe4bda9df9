"""`dataproc serve`, from the first line it prints to the last process gone."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import DEADLINE, REPOSITORY, Served, Shell, call, headers, until

RPC = "/api/v1/dataproc/jsonrpc"
SESSIONS = "/api/v1/session/jsonrpc"
SESSION_TEST = call("dataproc.exec", module="test-module", method="session-test")
SLEEPERS = {"DATAPROC_MODULES_DIR": str(REPOSITORY / "tests" / "modules")}


def test_serves_and_ends(shell: Shell) -> None:
    """It prints its address, serves a key made beside it, ends on SIGTERM with code 0, and leaves no process behind."""
    with shell.serve() as served:
        url = served.url
        key = shell.key()
        answer = httpx.post(url + RPC, json=SESSION_TEST, headers=headers(key), timeout=DEADLINE).json()
        assert "result" in answer, answer
        assert httpx.get(url + "/livez").status_code == 200
        family = served.family()
        assert family
        begun = time.monotonic()
        assert served.end(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 10
        until(lambda: not any(process.is_running() for process in family))


def test_kill_leaves_nothing(shell: Shell) -> None:
    """After `kill -9` of the server the kernel ends all below it, and it starts again over the same storage."""
    key = shell.key()
    with shell.serve() as served:
        first = httpx.post(served.url + RPC, json=SESSION_TEST, headers=headers(key), timeout=DEADLINE)
        assert "result" in first.json()
        family = served.family()
        served.end(signal.SIGKILL)
        until(lambda: not any(process.is_running() for process in family))
    with shell.serve() as served:
        again = httpx.post(served.url + RPC, json=SESSION_TEST, headers=headers(key), timeout=DEADLINE)
        assert "result" in again.json()


@pytest.mark.parametrize(
    ("method", "params", "status", "error", "level"),
    [
        ("kill", {}, "crashed", "exec_crashed", "warning"),
        ("no_json", {"kind": "cyclic"}, "failed", "exec_failed", "info"),
    ],
)
def test_a_failed_run_leaves_a_line(
    shell: Shell, method: str, params: dict[str, str], status: str, error: str, level: str
) -> None:
    """The log has one line for a run that did not complete, under the ids that its caller was told."""
    key = shell.key()
    with shell.serve(DATAPROC_MODULES_DIR=str(REPOSITORY / "tests" / "modules")) as served:
        sent = call("dataproc.exec", module="crasher", method=method, params=params)
        told = httpx.post(served.url + RPC, json=sent, headers=headers(key), timeout=DEADLINE).json()["error"]["data"]
        lines = [json.loads(line) for line in served.log.read_text().splitlines() if "run_ended" in line]
        assert len(lines) == 1
        wanted = {
            "run_id": told["run_id"], "request_id": told["request_id"], "module": "crasher", "method": method,
            "status": status, "error": error, "level": level,
        }  # fmt: skip
        assert {name: lines[0][name] for name in wanted} == wanted


def test_a_run_without_walls_is_told_as_such(shell: Shell) -> None:
    """With the sandbox off, the log lines of runs say so."""
    key = shell.key()
    with shell.serve(**SLEEPERS, DATAPROC_SANDBOX="off") as served:
        sent = call("dataproc.exec", module="crasher", method="kill")
        told = httpx.post(served.url + RPC, json=sent, headers=headers(key), timeout=DEADLINE).json()["error"]["data"]
        lines = [json.loads(line) for line in served.log.read_text().splitlines() if told["run_id"] in line]
    assert [line["sandbox"] for line in lines] == ["off"]


def test_log_lines_name_their_request(shell: Shell) -> None:
    """Also those of credentials, refused and used."""
    key = shell.key()
    with shell.serve() as served:
        for name, sent in (("r-1", headers(key) | {"Secret": "wrong"}), ("r-2", headers(key))):
            httpx.post(served.url + RPC, json=SESSION_TEST, headers=sent | {"X-Request-ID": name}, timeout=DEADLINE)
        lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    told = {line["event"]: line.get("request_id") for line in lines if line["event"].startswith("credentials")}
    assert told == {"credentials_refused": "r-1", "credentials_used": "r-2"}


def test_stop_tells_the_waiting_caller(shell: Shell) -> None:
    """A run that outlives the close wait is ended, and its caller is told `interrupted`, not cut off."""
    key = shell.key()
    with shell.serve(DATAPROC_CLOSE_WAIT="0.5", DATAPROC_RUN_GRACE="0.5", **SLEEPERS) as served:
        waiting = Waiting(shell, served, key)
        assert served.end(signal.SIGTERM) == 0
        assert waiting.answer() == "interrupted"


def test_second_signal_does_not_wait(shell: Shell) -> None:
    """A second signal ends the server without the close wait."""
    key = shell.key()
    with shell.serve(DATAPROC_CLOSE_WAIT="60", DATAPROC_RUN_GRACE="0.5", **SLEEPERS) as served:
        waiting = Waiting(shell, served, key)
        family = served.family()
        begun = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        until(lambda: "server.stopping" in served.log.read_text())
        assert served.end(signal.SIGTERM) == 0
        assert waiting.answer() == "interrupted"
        assert time.monotonic() - begun < 30
        until(lambda: not any(process.is_running() for process in family))


@pytest.mark.parametrize("request_line", ["PUT /api/v1/dataproc/files/x", f"POST {RPC}"])
def test_stop_does_not_wait_for_a_slow_upload(shell: Shell, request_line: str) -> None:
    """A body that does not end in the close wait is broken off and its sender told, however long runs take to die."""
    key = shell.key()
    with shell.serve(DATAPROC_CLOSE_WAIT="0.5", DATAPROC_RUN_GRACE="60") as served:
        opened = httpx.post(served.url + SESSIONS, json=call("session.open_session"), headers=headers(key)).json()
        host, _, port = served.url.rpartition("//")[2].partition(":")
        with socket.create_connection((host, int(port))) as slow:
            head = f"{request_line} HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\n"
            token = f"Xdata-Session-Token: {opened['result']['access_token']}\r\n"
            slow.sendall(f"{head}{token}Content-Length: 9\r\n\r\n".encode())
            assert slow.recv(100).startswith(b"HTTP/1.1 100")  # the server waits for the body now
            begun = time.monotonic()
            assert served.end(signal.SIGTERM) == 0
            assert time.monotonic() - begun < 20
            reply = slow.makefile("rb").read().decode()
            assert "HTTP/1.1 503" in reply
            assert "x-request-id: " in reply
            assert json.loads(reply.rpartition("\r\n\r\n")[2])["error"]["code"] == -32014
        assert "Traceback" not in served.log.read_text()


def test_first_key_once(shell: Shell) -> None:
    """`--first-key` shows a key and a curl line that works when pasted; the next start shows neither secret nor key."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with shell.serve("--first-key") as served:
        line = served.read_until(r"\n  (curl .*)\n")[1]
        pasted = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, timeout=DEADLINE)
        assert '"result"' in pasted.stdout, (line, pasted)
    with shell.serve("--first-key") as served:
        served.read_until(r"\n  (curl .*)\n")
        assert "DATAPROC_SECRET=" not in served.said


def test_open_to_all_without_a_key(shell: Shell) -> None:
    """It refuses to listen beyond loopback while no key is alive, and says what to do."""
    refused = shell.run("serve", DATAPROC_HOST="0.0.0.0")
    assert refused.returncode == 2
    assert "dataproc key create" in refused.stderr
    shell.key()
    with shell.serve(DATAPROC_HOST="0.0.0.0") as served:
        assert served.url.startswith("http://0.0.0.0:")


def test_port_in_use(shell: Shell) -> None:
    """A port that is taken is one line with the remedy."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = shell.run("serve", DATAPROC_PORT=str(taken.getsockname()[1]))
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "DATAPROC_PORT" in refused.stderr


def test_unix_socket(shell: Shell) -> None:
    """It listens on a unix socket, takes over one that a killed server left, refuses one in use, removes its own."""
    path = shell.folder / "dataproc.sock"
    key = shell.key()
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(path))
    with shell.serve(DATAPROC_UDS=str(path)) as served:
        assert served.url == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o666, "a proxy of another user has to get in"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
            answer = client.post(RPC, json=SESSION_TEST, headers=headers(key), timeout=DEADLINE)
            assert "result" in answer.json()
        refused = shell.run("serve", DATAPROC_UDS=str(path))
        assert refused.returncode == 2
        assert "another server" in refused.stderr
    assert not path.exists()


def test_https(shell: Shell) -> None:
    """With a certificate and its key it serves https; where they cannot be read it says so."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, private = shell.folder / "cert.pem", shell.folder / "key.pem"
    missing = shell.run("serve", DATAPROC_TLS_CERT=str(cert), DATAPROC_TLS_KEY=str(private))
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert "DATAPROC_TLS_CERT" in missing.stderr
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", private, "-out", cert], check=True, capture_output=True, timeout=DEADLINE)
    with shell.serve(DATAPROC_TLS_CERT=str(cert), DATAPROC_TLS_KEY=str(private)) as served:
        assert served.url.startswith("https://")
        refused = shell.run(
            "exec", "no.such", DATAPROC_URL=served.url, SSL_CERT_FILE=str(cert), DATAPROC_SESSION_TOKEN="x"
        )
        assert "unauthorized" in refused.stderr


class Waiting:
    """A call that waits in its worker for ever, and how it is answered in the end: by the error's name."""

    def __init__(self, shell: Shell, served: Served, key: dict[str, Any]) -> None:
        self._answer = ""
        self._thread = threading.Thread(target=self._call, args=(served.url + RPC, headers(key)), daemon=True)
        self._thread.start()
        until(lambda: list((shell.folder / "storage" / "sessions").glob("*/*/files/never.started")))

    def _call(self, url: str, who: dict[str, str]) -> None:
        wait = call("dataproc.exec", module="sleeper", method="wait_for", params={"name": "never"})
        try:
            answer = httpx.post(url, json=wait, headers=who, timeout=DEADLINE).json()
            self._answer = answer["error"]["data"]["name"] if "error" in answer else "result"
        except httpx.HTTPError as lost:
            self._answer = type(lost).__name__

    def answer(self) -> str:
        """Waits for it."""
        self._thread.join(DEADLINE)
        return self._answer


@pytest.mark.parametrize("count", [1, 3])
def test_an_accepted_notification_survives_the_close_of_its_session(shell: Shell, count: int) -> None:
    """204 says that it is under way, however long its module takes to come up: the end of the session waits for it."""
    key = shell.key()
    with shell.serve() as served, httpx.Client(base_url=served.url, timeout=DEADLINE) as client:
        opened = client.post(SESSIONS, json=call("session.open_session"), headers=headers(key)).json()["result"]
        notification = {name: value for name, value in SESSION_TEST.items() if name != "id"}
        body = notification if count == 1 else [notification] * count
        accepted = client.post(RPC, json=body, headers={"Xdata-Session-Token": opened["access_token"]})
        assert (accepted.status_code, accepted.content) == (204, b"")
        closing = call("session.close_session", token=opened["access_token"])
        assert client.post(SESSIONS, json=closing, headers=headers(key)).json()["result"] is True

        def ended() -> list[Any]:
            runs = client.post(RPC, json=call("dataproc.list_runs"), headers=headers(key)).json()["result"]["runs"]
            return [run["status"] for run in runs if run["ended_at"] is not None]

        assert until(lambda: len(ended()) == count and ended()) == ["completed"] * count
