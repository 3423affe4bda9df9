"""Promise: a death costs one error: of a worker in the middle of a call, or of the server itself."""

from __future__ import annotations

import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

SESSIONS = "/api/v1/session/jsonrpc"


def test_a_worker_killed_under_a_call_is_one_error(session, bystander, server):
    """-32006, the files written before stay, and the next call works."""
    error = session.error("crasher.mark_and_die", name="mark")
    assert (error.code, error.data["signal"], error.data["retryable"]) == (-32006, 9, True)
    assert (session.files / "mark").read_text() == "before"
    assert session.exec("crasher.ok")


def test_a_server_killed_under_a_call_loses_no_acknowledged_file(own_server, until, restart):
    """What was answered before kill -9 is there after the restart, with the same token."""
    server = own_server("sleeper", "globals")
    session = server.open_session()
    answered: list[int] = []
    stop = threading.Event()

    def work():
        while not stop.is_set():
            try:
                answered.append(session.exec("globals.append", line=str(len(answered))))
            except Exception:
                return

    worker = threading.Thread(target=work)
    worker.start()
    until(lambda: len(answered) >= 20)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(30)
    stop.set()
    worker.join(60)
    session.server = restart(server)
    lines = (session.files / "lines.txt").read_text().splitlines()
    assert lines[: len(answered)] == [str(number) for number in range(len(answered))]
    assert session.exec("globals.append", line="after") == len(lines) + 1


def test_two_hundred_first_calls_make_one_session(own_server):
    """Two hundred concurrent first calls of one session lose no line and make one directory."""
    server = own_server("globals")
    session = server.open_session()
    numbers = range(200)

    def call(number):
        return session.exec("globals.append", line=f"line {number}")

    with ThreadPoolExecutor(200) as pool:
        counts = sorted(pool.map(call, numbers))
    lines = (session.files / "lines.txt").read_text().splitlines()
    assert sorted(lines) == sorted(f"line {number}" for number in numbers)
    assert counts == list(range(1, 201))
    assert len(list((server.storage / "sessions").glob("*/*"))) == 1


def test_a_module_that_dies_at_import_breaks_itself_alone(own_server):
    """Dying, raising, hanging and leaving at import: each is told as broken, and others serve on."""
    server = own_server("chatterbox", IMPORT_TIMEOUT=5)
    broken = {
        "dying": "import os\nos.abort()\n",
        "leaving": "import os\nos._exit(0)\n",
        "raising": "raise RuntimeError('not today')\n",
        "hanging": "while True: pass\n",
        "talking": "import os\nfor n in range(64):\n    try: os.write(n, b'\\xff' * 100)\n    except OSError: pass\n",
    }
    for name, text in broken.items():
        (server.modules / name).mkdir()
        (server.modules / name / "module.py").write_text(text)
        if server.uid is not None:
            (server.modules / name).chmod(0o755)
    session = server.open_session()
    for name in broken:
        error = session.error(f"{name}.anything")
        assert error.code == -32004, (name, error)
        assert json.dumps(error.data)
    assert session.exec("chatterbox.echo", value="here") == "here"
