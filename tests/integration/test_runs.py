"""Runs over HTTP: submitted, watched, cancelled, repeated, and found again after a restart."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.security.conftest import RpcError, Server, Session, restart, serving, until  # noqa: F401 - fixtures

DATAPROC = "/api/v1/dataproc/jsonrpc"
DATAPROC_COMMAND = str(Path(sys.executable).with_name("dataproc"))
UNKNOWN, CONFLICT, CANCELLED, INTERRUPTED = -32013, -32011, -32008, -32014


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for these tests."""
    with serving(None, ["worker", "echo", "chatterbox", "crasher"], SANDBOX="auto", CONCURRENT_RUNS=4) as running:
        yield running


@pytest.fixture
def session(server: Server) -> Session:
    """A session of it."""
    return server.open_session()


def token(session: Session) -> dict[str, str]:
    return {"Xdata-Session-Token": session.token}


def rpc(session: Session, method: str, _headers: dict[str, str] | None = None, /, **params: Any) -> Any:
    return session.server.rpc(DATAPROC, f"dataproc.{method}", params, token(session) | (_headers or {}))


def submit(session: Session, target: str, _headers: dict[str, str] | None = None, /, **params: Any) -> str:
    module, _, method = target.partition(".")
    return str(rpc(session, "submit", _headers, module=module, method=method, params=params)["run_id"])


def ended(session: Session, run_id: str) -> dict[str, Any]:
    return dict(rpc(session, "wait_run", run_id=run_id, timeout=30))


def appears(session: Session, name: str, deadline: float = 30) -> None:
    end = time.monotonic() + deadline
    pause = threading.Event()
    while not (session.files / name).exists():
        assert time.monotonic() < end, f"{name} did not appear"
        pause.wait(0.005)


def release(session: Session, name: str) -> None:
    session.server.http.put(
        f"{session.server.url}/api/v1/dataproc/files/{name}", content=b"go", headers=token(session)
    ).raise_for_status()


def events(session: Session, run_id: str, after: int | None = None) -> list[tuple[int, str, dict[str, Any]]]:
    sent = token(session) | ({} if after is None else {"Last-Event-ID": str(after)})
    reply = session.server.http.get(f"{session.server.url}/api/v1/dataproc/runs/{run_id}/events", headers=sent)
    assert reply.headers["content-type"].startswith("text/event-stream"), reply.text
    return parsed(reply.text)


def parsed(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    found = []
    for block in text.split("\n\n"):
        members = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "id" in members:
            found.append((int(members["id"]), members["event"], json.loads(members["data"])))
    return found


def test_a_submitted_run_is_known_from_its_answer_to_its_end(session: Session) -> None:
    """submit answers an id, get_run and list_runs know it, wait_run gives the result."""
    answer = rpc(session, "submit", module="echo", method="echo", params={"value": {"a": 1}})
    assert answer["status"] == "queued"
    assert answer["poll_after"] > 0
    listed = rpc(session, "list_runs")["runs"]
    assert [run["run_id"] for run in listed] == [answer["run_id"]]
    run = ended(session, answer["run_id"])
    assert (run["status"], run["result"], run["error"]) == ("completed", {"a": 1}, None)
    assert (run["module"], run["method"], run["session_id"]) == ("echo", "echo", session.id)
    assert run["usage"]["peak_memory"] > 0
    assert run["created_at"] <= run["started_at"] <= run["ended_at"]
    assert rpc(session, "get_run", run_id=answer["run_id"]) == run


def test_synchronous_calls_are_on_record_too(session: Session) -> None:
    """A call that completed and one that failed are listed at once, newest first."""
    assert session.exec("echo.echo", value=1) == 1
    failed = session.error("echo.fail")
    listed = rpc(session, "list_runs")["runs"]
    assert [(run["method"], run["status"]) for run in listed] == [("fail", "failed"), ("echo", "completed")]
    assert listed[0]["run_id"] == failed.data["run_id"]
    assert rpc(session, "get_run", run_id=failed.data["run_id"])["error"]["code"] == -32005


def test_lists_are_paged_and_filtered(session: Session) -> None:
    """Every run stands on one page, in order; status and module narrow the list."""
    for value in range(5):
        session.exec("echo.echo", value=value)
    session.error("echo.fail")
    found, cursor = [], None
    for _ in range(4):
        page = rpc(session, "list_runs", limit=2, cursor=cursor)
        found += [run["run_id"] for run in page["runs"]]
        if (cursor := page["cursor"]) is None:
            break
    assert len(found) == len(set(found)) == 6
    assert found == sorted(found, reverse=True)
    assert [run["method"] for run in rpc(session, "list_runs", status="failed")["runs"]] == ["fail"]
    assert len(rpc(session, "list_runs", status="completed")["runs"]) == 5
    assert rpc(session, "list_runs", module="worker")["runs"] == []
    assert rpc(session, "list_runs", status="running")["runs"] == []
    with pytest.raises(RpcError) as wrong:
        rpc(session, "list_runs", status="odd")
    assert wrong.value.code == -32602


def test_runs_are_listed_by_an_alias_of_their_module(session: Session) -> None:
    """A call by an alias is on record under the module's name, and a list by the alias finds it."""
    session.exec("echo.echo", value=1)
    for name in ("echo", "Echo", "com.example.echo", "COM.example.Echo"):
        assert len(rpc(session, "list_runs", module=name)["runs"]) == 1, name


@pytest.mark.parametrize("cursor", ["", "zzz", "01a20000-0000-7000-8000-00000000000X"])
def test_a_cursor_that_no_page_gave_is_refused(session: Session, cursor: str) -> None:
    """Rather than answered with a page from somewhere, or with none."""
    session.exec("echo.echo", value=1)
    with pytest.raises(RpcError) as wrong:
        rpc(session, "list_runs", cursor=cursor)
    assert (wrong.value.code, wrong.value.data["errors"][0]["loc"]) == (-32602, ["cursor"])


def test_the_error_of_a_run_is_told_as_its_caller_was(session: Session) -> None:
    """With all that every error has, by `get_run`, `list_runs` and the events alike."""
    told = session.error("echo.fail")
    run_id = told.data["run_id"]
    (listed,) = rpc(session, "list_runs")["runs"]
    event = events(session, run_id)[-1][2]
    for error in (rpc(session, "get_run", run_id=run_id)["error"], listed["error"], event["error"]):
        assert error == {"code": told.code, "message": told.message, "data": told.data}


def test_runs_of_others_are_unknown(server: Server, session: Session) -> None:
    """Another session's run can be neither seen, nor cancelled, nor read, nor watched."""
    run_id = submit(session, "echo.echo", value=1)
    other = server.open_session()
    for method in ("get_run", "wait_run", "cancel_run", "get_log"):
        with pytest.raises(RpcError) as refused:
            rpc(other, method, run_id=run_id)
        assert refused.value.code == UNKNOWN
    reply = server.http.get(f"{server.url}/api/v1/dataproc/runs/{run_id}/events", headers=token(other))
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, UNKNOWN)
    assert server.rpc(DATAPROC, "dataproc.get_run", {"run_id": run_id}, server.key)["run_id"] == run_id


def test_an_operator_sees_all_runs(server: Server, session: Session) -> None:
    """With `all`, a key with `admin` finds runs of other keys; another key is told that it may not.

    Without it the scope is none for runs.
    """
    run_id = submit(session, "echo.echo", value=1)
    made = subprocess.run(
        [DATAPROC_COMMAND, "key", "create", "--name", "operator", "--scopes", "admin", "-o", "json"],
        env=server.env, cwd=server.folder, check=True, capture_output=True,
    )  # fmt: skip
    told = json.loads(made.stdout)
    operator = {"APIKey": told["apikey"], "Secret": told["secret"]}
    found = server.rpc(DATAPROC, "dataproc.list_runs", {"all": True, "limit": 1000}, operator)["runs"]
    assert run_id in [run["run_id"] for run in found]
    assert server.rpc(DATAPROC, "dataproc.get_run", {"run_id": run_id, "all": True}, operator)["run_id"] == run_id
    with pytest.raises(RpcError) as refused:
        server.rpc(DATAPROC, "dataproc.list_runs", {"all": True}, server.key)
    assert refused.value.data["scope"] == "admin"
    with pytest.raises(RpcError) as refused:
        server.rpc(DATAPROC, "dataproc.list_runs", {}, operator)
    assert refused.value.data["scope"] == "dataproc.exec"


def test_a_cancel_reaches_the_process(session: Session) -> None:
    """A run that looks at the flag ends, its files stay, and the caller is told -32008; twice is as good as once."""
    run_id = submit(session, "worker.stops")
    appears(session, "started")
    assert rpc(session, "cancel_run", run_id=run_id) is True
    assert rpc(session, "cancel_run", run_id=run_id) is True
    run = ended(session, run_id)
    assert (run["status"], run["error"]["code"]) == ("cancelled", CANCELLED)
    assert (session.files / "kept.txt").read_text() == "kept"
    assert rpc(session, "cancel_run", run_id=run_id) is True
    assert rpc(session, "get_run", run_id=run_id)["status"] == "cancelled"


def test_a_queued_run_has_a_place_and_can_be_cancelled(session: Session) -> None:
    """Of three runs that are to be alone one runs; the others know their places, and one of them is never started."""
    first = submit(session, "worker.alone", name="one")
    appears(session, "one.started")
    second, third = submit(session, "worker.alone", name="two"), submit(session, "worker.alone", name="three")
    assert [rpc(session, "get_run", run_id=each)["place"] for each in (first, second, third)] == [None, 1, 2]
    assert {run["run_id"] for run in rpc(session, "list_runs", status="queued")["runs"]} == {second, third}
    rpc(session, "cancel_run", run_id=second)
    assert ended(session, second)["status"] == "cancelled"
    assert rpc(session, "get_run", run_id=third)["place"] == 1
    release(session, "three")
    release(session, "one")
    assert ended(session, first)["status"] == ended(session, third)["status"] == "completed"
    assert not (session.files / "two.started").exists()


def test_a_long_synchronous_call_can_be_ended_by_somebody_else(session: Session) -> None:
    """It is on the list while it runs, and its caller is told that it was cancelled."""
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(session.error, "worker.until", name="never")
        appears(session, "never.started")
        pause, found = threading.Event(), []
        for _ in range(1000):
            if found := rpc(session, "list_runs", status="running")["runs"]:
                break
            pause.wait(0.01)
        rpc(session, "cancel_run", run_id=found[0]["run_id"])
        assert calling.result(30).code == CANCELLED


@pytest.mark.parametrize("asks", [True, False])
def test_a_caller_that_hangs_up(session: Session, asks: bool) -> None:
    """The run goes on unless its caller asked that it be ended then."""
    call = {"module": "worker", "method": "until", "params": {"name": "x"}, "cancel_on_disconnect": asks}
    with httpx.Client() as alone, ThreadPoolExecutor(1) as pool:
        body = {"jsonrpc": "2.0", "id": 1, "method": "dataproc.exec", "params": call}
        calling = pool.submit(alone.post, session.server.url + DATAPROC, json=body, headers=token(session), timeout=3)
        appears(session, "x.started")
        with pytest.raises(httpx.TimeoutException):
            calling.result(30)
    (run,) = rpc(session, "list_runs")["runs"]
    if not asks:
        assert run["status"] == "running"
        release(session, "x")
    assert ended(session, run["run_id"])["status"] == ("cancelled" if asks else "completed")


def test_events_tell_all_of_a_run_and_resume_anywhere(session: Session) -> None:
    """State, progress and output in one numbered order; from any number on the rest comes, the same as before."""
    run_id = submit(session, "worker.count", steps=3)
    live = events(session, run_id)
    assert [number for number, _, _ in live] == list(range(1, len(live) + 1))
    states = [data["status"] for _, kind, data in live if kind == "state"]
    assert states == ["queued", "running", "completed"]
    assert "".join(data["text"] for _, kind, data in live if kind == "log") == "step 1\nstep 2\nstep 3\n"
    assert [data["fraction"] for _, kind, data in live if kind == "progress"][-1] == 1.0
    assert events(session, run_id) == live
    for after in range(len(live) + 1):
        assert events(session, run_id, after) == live[after:]
    assert rpc(session, "get_run", run_id=run_id)["progress"] == {"fraction": 1.0, "message": "step 3"}


def test_events_of_a_silent_run(session: Session) -> None:
    """Its states are told, without a file having been made for it."""
    run_id = submit(session, "echo.echo", value=1)
    ended(session, run_id)
    assert [(number, data["status"]) for number, _, data in events(session, run_id)] == [
        (1, "queued"), (2, "running"), (3, "completed"),
    ]  # fmt: skip
    assert not list((session.server.storage / "runs").rglob(f"{run_id}*"))


def test_a_watcher_sees_output_while_the_run_goes_on(session: Session) -> None:
    """What a run prints arrives before its end."""
    run_id = submit(session, "worker.until", name="go")
    with session.server.http.stream(
        "GET", f"{session.server.url}/api/v1/dataproc/runs/{run_id}/events", headers=token(session)
    ) as reply:
        seen = ""
        for piece in reply.iter_text():
            seen += piece
            if "started" in seen and not (session.files / "go").exists():
                release(session, "go")
    kinds = [(kind, data.get("status") or data.get("text")) for _, kind, data in parsed(seen)]
    assert kinds == [("state", "queued"), ("state", "running"), ("log", "started\n"), ("state", "completed")]


@pytest.mark.parametrize("bad", ["x", "-1", "1.5", "9" * 19])
def test_a_last_event_id_that_is_none(session: Session, bad: str) -> None:
    """It is refused with 400."""
    run_id = submit(session, "echo.echo")
    sent = token(session) | {"Last-Event-ID": bad}
    reply = session.server.http.get(f"{session.server.url}/api/v1/dataproc/runs/{run_id}/events", headers=sent)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, -32602)


def test_logs_are_read_in_pieces(session: Session) -> None:
    """Text from a byte on, never cut within a character, and an end that is told."""
    run_id = submit(session, "chatterbox.say", text="käse-" * 20)
    ended(session, run_id)
    text, offset, done = "", 0, False
    for _ in range(100):
        piece = rpc(session, "get_log", run_id=run_id, offset=offset, limit=7)
        text, offset, done = text + piece["text"], piece["offset"], piece["ended"]
        if done:
            break
    assert text == "käse-" * 20 + "\n"
    assert offset == len(text.encode())


def test_a_flood_is_bounded(session: Session) -> None:
    """Of a gigabyte the limit is kept, in log and events; the rest is counted."""
    run_id = submit(session, "chatterbox.flood", size=2**30)
    run = ended(session, run_id)
    assert run["usage"]["log_bytes"] == 2**30
    told = sum(len(data["text"]) for _, kind, data in events(session, run_id) if kind == "log")
    assert told < 2**20 + 200  # the limit of this server


def test_a_watcher_that_never_reads_holds_up_nobody(session: Session) -> None:
    """The run ends, and another watcher sees it."""
    import socket

    run_id = submit(session, "chatterbox.flood", size=2**21)
    with socket.create_connection(("127.0.0.1", session.server.port)) as deaf:
        deaf.sendall(
            f"GET /api/v1/dataproc/runs/{run_id}/events HTTP/1.1\r\nHost: x\r\n"
            f"Xdata-Session-Token: {session.token}\r\n\r\n".encode()
        )
        assert ended(session, run_id)["status"] == "completed"
        assert events(session, run_id)[-1][2]["status"] == "completed"


def test_an_idempotency_key_runs_a_call_once(session: Session) -> None:
    """Again, and at once, by header or param: one run, one result; other arguments are -32011."""
    call = {"module": "worker", "method": "once", "params": {"name": "a"}}

    def post(_: int) -> Any:
        return rpc(session, "exec", {"Idempotency-Key": "k1"}, **call)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(post, range(16))) == {1}
    assert rpc(session, "exec", idempotency_key="k1", **call) == 1
    assert rpc(session, "submit", idempotency_key="k1", **call)["status"] == "completed"
    assert len(rpc(session, "list_runs")["runs"]) == 1
    with pytest.raises(RpcError) as other:
        rpc(session, "exec", idempotency_key="k1", **(call | {"params": {"name": "b"}}))
    assert other.value.code == CONFLICT
    assert rpc(session, "exec", idempotency_key="k2", **call) == 2


def test_a_stored_failure_is_answered_again(session: Session) -> None:
    """The same error, with the same run's id, and no second run."""
    found = []
    for _ in range(2):
        with pytest.raises(RpcError) as failed:
            rpc(session, "exec", module="echo", method="fail", idempotency_key="f")
        found.append((failed.value.code, failed.value.message, failed.value.data["run_id"], failed.value.data["name"]))
    assert found[0] == found[1]
    assert found[0][0] == -32005


def test_a_repeated_call_ends_its_session_as_the_first_would(session: Session) -> None:
    """A server that died between the run and the end of its session leaves that to the call under the same key."""
    call = {"module": "echo", "method": "echo", "params": {"value": 1}, "idempotency_key": "c"}
    assert rpc(session, "exec", **call) == rpc(session, "exec", close=True, **call) == 1
    with pytest.raises(RpcError) as over:
        rpc(session, "list_runs")
    assert over.value.code == -32003


def test_refusals_are_not_stored(session: Session) -> None:
    """A call that was refused before it began may be sent right under the same key."""
    with pytest.raises(RpcError) as refused:
        rpc(session, "exec", module="worker", method="once", params={}, idempotency_key="r")
    assert refused.value.code == -32602
    assert rpc(session, "exec", module="worker", method="once", params={"name": "r"}, idempotency_key="r") == 1


def test_keys_of_sessions_are_apart(server: Server) -> None:
    """The same key in two sessions is two calls; without a token it is the caller's key that counts."""
    one, two = server.open_session(), server.open_session()
    call = {"module": "worker", "method": "once", "params": {"name": "a"}, "idempotency_key": "same"}
    assert rpc(one, "exec", **call) == rpc(two, "exec", **call) == 1
    told = [server.rpc(DATAPROC, "dataproc.submit", call, server.key)["run_id"] for _ in range(2)]
    assert told[0] == told[1]


def test_a_submit_without_a_token_keeps_its_session_until_the_end(
    server: Server,
    until: Callable[..., Any],  # noqa: F811
) -> None:
    """Token and id come back as headers; the session ends after the run."""
    body = {"module": "worker", "method": "until", "params": {"name": "go"}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "dataproc.submit", "params": body}
    reply = server.http.post(server.url + DATAPROC, json=asked, headers=server.key)
    kept = Session(server, reply.headers["Xdata-Session-Token"], reply.headers["Xdata-Session-Id"])
    run_id = reply.json()["result"]["run_id"]
    appears(kept, "go.started")
    release(kept, "go")

    def over() -> bool:
        try:
            rpc(kept, "get_run", run_id=run_id)
        except RpcError:
            return True
        return False

    until(over)
    assert server.rpc(DATAPROC, "dataproc.get_run", {"run_id": run_id}, server.key)["status"] == "completed"
    until(lambda: not kept.files.exists())


def test_a_run_that_may_be_tried_again(session: Session) -> None:
    """A process that dies under it is replaced, as often as the method says."""
    run = ended(session, submit(session, "worker.dies_once"))
    assert (run["status"], run["result"], run["attempt"]) == ("completed", "alive", 2)


def test_large_results_are_artifacts(session: Session) -> None:
    """exec and get_run answer the same reference."""
    run = ended(session, submit(session, "crasher.large", size=2**21))
    assert set(run["result"]) == {"$artifact", "size", "sha256", "preview"}
    assert run["result"]["$artifact"].startswith(".dataproc/")


def test_a_restart_finds_every_run(restart: Callable[[Server], Server]) -> None:  # noqa: F811
    """After kill -9: what ended is there, what ran is interrupted or runs again, what waited runs."""
    with serving(None, ["worker", "echo"], SANDBOX="auto", CONCURRENT_RUNS=2) as server:
        session = server.open_session()
        done = submit(session, "worker.count", steps=2)
        before = events(session, done)
        running, again = submit(session, "worker.until", name="a"), submit(session, "worker.again_until", name="b")
        appears(session, "a.started")
        appears(session, "b.started")
        queued = submit(session, "worker.once", name="c")
        with ThreadPoolExecutor(1) as pool:
            keyed = pool.submit(
                rpc, session, "exec", module="worker", method="once", params={"name": "d"}, idempotency_key="k"
            )
            pause = threading.Event()
            for _ in range(1000):
                if len(rpc(session, "list_runs")["runs"]) == 5:
                    break
                pause.wait(0.01)
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
            assert isinstance(keyed.exception(30), httpx.HTTPError)
        fresh = Session(restart(server), session.token, session.id)
        assert ended(fresh, done)["status"] == "completed"
        assert events(fresh, done) == before
        assert ended(fresh, running)["status"] == "interrupted"
        assert ended(fresh, queued)["status"] == "completed"
        assert events(fresh, running)[-1][2]["status"] == "interrupted"
        with pytest.raises(RpcError) as told:
            rpc(fresh, "exec", module="worker", method="once", params={"name": "d"}, idempotency_key="k")
        assert told.value.code == INTERRUPTED
        assert not (fresh.files / "d").exists()
        release(fresh, "b")
        assert ended(fresh, again)["attempt"] == 2
        assert (fresh.files / "c").read_text() == "run\n"


def test_the_record_says_what_a_run_changed(session: Session) -> None:
    """Created, modified and deleted files, with size, type and hash; what came and went, and our own, is not told."""
    for name in ("old.csv", "gone.txt"):
        release(session, name)
    run = ended(session, submit(session, "worker.change"))
    digest = hashlib.sha256(b"changed").hexdigest()
    assert run["changes"]["modified"] == [{"path": "old.csv", "size": 7, "media_type": "text/csv", "sha256": digest}]
    assert [entry["path"] for entry in run["changes"]["created"]] == ["a/b/new.json", "renamed.txt"]
    assert run["changes"]["deleted"] == ["gone.txt"]
    assert run["changes"]["shared"] is False
    silent = ended(session, submit(session, "echo.echo"))
    assert silent["changes"] == {"created": [], "modified": [], "deleted": [], "shared": False}
    large = ended(session, submit(session, "crasher.large", size=2**21))
    assert large["changes"]["created"] == []


@pytest.mark.parametrize("files", [1, 20])
def test_the_record_of_a_quick_run_leaves_our_own_files_out(session: Session, files: int) -> None:
    """Whether its few changes are listed after its answer, or its many before."""
    session.exec("crasher.large", size=2**21)
    assert list((session.files / ".dataproc").rglob("*.json"))
    session.exec("worker.clear", files=files)
    run = ended(session, rpc(session, "list_runs")["runs"][0]["run_id"])
    assert len(run["changes"]["created"]) == files
    assert run["changes"]["deleted"] == []


@pytest.mark.parametrize("waited_for", [False, True])
def test_large_files_get_their_hashes_later(
    session: Session,
    until: Callable[..., Any],  # noqa: F811
    waited_for: bool,
) -> None:
    """A file above 1 MiB is listed at once, and its hash is there when it has been computed."""
    if waited_for:
        session.exec("worker.write", name="big.bin", size=2**21)
        run_id = rpc(session, "list_runs")["runs"][0]["run_id"]
    else:
        run_id = submit(session, "worker.write", name="big.bin", size=2**21)

    def hashed() -> Any:
        (entry,) = ended(session, run_id)["changes"]["created"]
        assert (entry["path"], entry["size"]) == ("big.bin", 2**21)
        return entry.get("sha256")

    assert until(hashed) == hashlib.sha256(b"x" * 2**21).hexdigest()


def test_changes_of_runs_at_once_may_be_shared(session: Session) -> None:
    """Two that write in the session at the same time say so."""
    one, two = submit(session, "worker.until", name="one"), submit(session, "worker.until", name="two")
    appears(session, "one.started")
    appears(session, "two.started")
    release(session, "one")
    release(session, "two")
    assert ended(session, one)["changes"]["shared"] is True
    assert ended(session, two)["changes"]["shared"] is True
