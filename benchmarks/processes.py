"""Server processes: started with a log file, waited for, measured from /proc, and ended for sure."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
START_LIMIT = 60.0
STOP_LIMIT = 20.0
ADDRESS = re.compile(r"https?://([\w.\[\]:-]+):(\d+)")


@dataclass(frozen=True)
class Served:
    """A server that answers at `port` of the loopback."""

    pid: int
    port: int
    log: Path


@contextmanager
def serving(command: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> Iterator[Served]:
    """Run a server that prints its address to stdout or stderr; end it, and what it left, on leaving."""
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603
            command, stdout=out, stderr=subprocess.STDOUT, env=dict(env), cwd=cwd, start_new_session=True
        )
    try:
        port = wait_until(lambda: listening_port(process, log), START_LIMIT, f"{command}: no address in {log}")
        yield Served(process.pid, port, log)
    except BaseException:
        print(f"--- end of {log} ---", log.read_text(errors="replace")[-3000:], sep="\n", flush=True)
        raise
    finally:
        end(process)


def listening_port(process: subprocess.Popen[bytes], log: Path) -> int | None:
    """The port that the log names, once something listens there."""
    if process.poll() is not None:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    found = ADDRESS.search(log.read_text(errors="replace"))
    if found is None:
        return None
    try:
        socket.create_connection(("127.0.0.1", int(found[2])), 1).close()
    except OSError:
        return None
    return int(found[2])


def wait_until(look: Callable[[], T | None], limit: float, failure: str) -> T:
    """What `look` finds, looked for until the limit."""
    deadline = time.monotonic() + limit
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(failure)
        time.sleep(0.02)
    return found


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM and its limit, then SIGKILL, also for what it left behind."""
    below = descendants(process.pid)
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid, started in below.items():
        if start_time(pid) == started:
            print(f"left behind by {process.args!r}: process {pid}, killed", flush=True)
            os.kill(pid, 9)


def start_time(pid: int) -> str | None:
    """When a process started, which together with its id names it for good; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def descendants(pid: int) -> dict[int, str]:
    """The start times of all processes below `pid`."""
    found: dict[int, str] = {}
    for child in children(pid):
        if (started := start_time(child)) is not None:
            found |= {child: started, **descendants(child)}
    return found


def children(pid: int) -> list[int]:
    """The direct children of a process, of all its threads."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, listed.read_text().split())
        except OSError:
            continue
    return found


def private_memory(pid: int) -> int:
    """Bytes that this process alone holds. Raises OSError where the kernel does not tell."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.M))
