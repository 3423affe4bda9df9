"""Kills a server that is at work, again and again, and asks afterwards what became of everything it answered for.

`python -m tests.soak 200` kills it 200 times; the test suite does so a few times.
"""

from __future__ import annotations

import random
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.security.conftest import RpcError, Server, Session, serving, start

DATAPROC = "/api/v1/dataproc/jsonrpc"
CALLERS = 4
LONGEST_LIFE = 0.6  # seconds of load before a kill


@dataclass
class Promises:
    """What callers were told: runs by id, with the file that each makes; files of calls with keys."""

    runs: dict[str, str] = field(default_factory=dict)
    keyed: dict[str, str] = field(default_factory=dict)


def call(session: Session, method: str, /, **params: Any) -> Any:
    """One call on a connection of its own, since the server may be about to die."""
    with httpx.Client(timeout=60) as http:
        body = {"jsonrpc": "2.0", "id": 1, "method": f"dataproc.{method}", "params": params}
        headers = {"Xdata-Session-Token": session.token}
        answer = http.post(session.server.url + DATAPROC, json=body, headers=headers).json()
    if "error" in answer:
        raise RpcError(answer["error"])
    return answer["result"]


def submits(session: Session, promises: Promises) -> None:
    """A run that somebody will come back for."""
    name = f"s-{uuid.uuid4()}"
    promises.runs[call(session, "submit", module="worker", method="once", params={"name": name})["run_id"]] = name


def calls_once(session: Session, promises: Promises) -> None:
    """A call that must not be made twice; it is on the list before it is sent."""
    name = f"k-{uuid.uuid4()}"
    promises.keyed[name] = name
    call(session, "exec", module="worker", method="once", params={"name": name}, idempotency_key=name)


def submits_once(session: Session, promises: Promises) -> None:
    """Both."""
    name = f"b-{uuid.uuid4()}"
    promises.keyed[name] = name
    asked = {"module": "worker", "method": "once", "params": {"name": name}, "idempotency_key": name}
    promises.runs[call(session, "submit", **asked)["run_id"]] = name


def works(session: Session, promises: Promises, over: threading.Event, dice: random.Random) -> None:
    """A caller, until the server dies."""
    act: Callable[[Session, Promises], None]
    while not over.is_set():
        act = dice.choice((submits, calls_once, submits_once))
        with suppress(httpx.HTTPError, RpcError):
            act(session, promises)


def one_life(session: Session, promises: Promises, dice: random.Random) -> None:
    """Load the server once it has a warm worker, and kill it at a random moment."""
    session.exec("worker.once", name="warm")
    over = threading.Event()
    callers = [
        threading.Thread(target=works, args=(session, promises, over, random.Random(dice.random())))
        for _ in range(CALLERS)
    ]
    for caller in callers:
        caller.start()
    over.wait(dice.uniform(0, LONGEST_LIFE))
    session.server.process.kill()
    session.server.process.wait()
    over.set()
    for caller in callers:
        caller.join()


def judged(session: Session, promises: Promises) -> Counter[str]:
    """Whether every promise was kept; how many runs ended in which way."""
    ends: Counter[str] = Counter()
    for run_id, name in promises.runs.items():
        run = call(session, "wait_run", run_id=run_id, timeout=60)
        ends[run["status"]] += 1
        assert run["status"] in ("completed", "interrupted"), run
        made = lines(session, name)
        assert made == 1 if run["status"] == "completed" else made <= 1, (run, made)
    for name in promises.keyed:
        assert lines(session, name) <= 1, f"{name} was run twice"
        with suppress(RpcError):
            asked = {"module": "worker", "method": "once", "params": {"name": name}, "idempotency_key": name}
            assert call(session, "exec", **asked) == 1
        assert lines(session, name) <= 1, f"{name} was run twice"
    return ends


def lines(session: Session, name: str) -> int:
    """How often the method wrote into the file."""
    path = session.files / name
    return len(path.read_text().splitlines()) if path.exists() else 0


def soak(kills: int, seed: int) -> Counter[str]:
    """Kill a server so often; how its submitted runs ended. Raises AssertionError for a promise that was not kept."""
    dice, promises = random.Random(seed), Promises()
    with ExitStack() as stack:
        server: Server = stack.enter_context(serving(None, ["worker"], SANDBOX="auto", CONCURRENT_RUNS=3))
        session = server.open_session()
        for _ in range(kills):
            one_life(session, promises, dice)
            server = start(server.folder, server.env, server.uid, server.key)
            stack.callback(server.stop)
            session = Session(server, session.token, session.id)
        ends = judged(session, promises)
    assert ends["completed"], "nothing was done at all"
    return ends


if __name__ == "__main__":
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.write(f"{dict(soak(int(sys.argv[1]), seed))}\n")
