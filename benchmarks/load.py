"""Many callers at once: calls per second by wrk where it is installed, else by a small generator in asyncio.

The work is checked by the counts that the sessions themselves keep, since JSON-RPC answers errors with 200 too.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence

from benchmarks.callers import Caller, Target

CONNECTIONS = 16
NO_WRK = "wrk is not installed (package `wrk`): a generator in Python loads instead, and takes time from the servers"


def have_wrk() -> bool:
    """Whether wrk is there."""
    return shutil.which("wrk") is not None


def calls_per_second(targets: Sequence[Target], seconds: float) -> float:
    """Calls per second of 16 callers, who take the targets (sessions of one server) in turn."""
    before = sum(Caller(target).count() for target in targets)
    done, taken = (by_wrk if have_wrk() and seconds >= 1 else by_asyncio)(targets, seconds)
    after = sum(Caller(target).count() for target in targets)
    if after - before < done:
        raise RuntimeError(f"{done} answers came, but only {after - before} lines were written")
    return done / taken


def requests_per_second(target: Target, seconds: float) -> tuple[int, float]:
    """How many answers 16 callers got that send the same request, and in how many seconds."""
    return (by_wrk if have_wrk() and seconds >= 1 else by_asyncio)([target], seconds)


def by_wrk(targets: Sequence[Target], seconds: float) -> tuple[int, float]:
    """Answers that came, and in how many seconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_lua(targets))
        script.flush()
        wrk = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{round(seconds)}s", "--timeout", "30s", "-s", script.name]
        url = f"http://127.0.0.1:{targets[0].port}"
        told = subprocess.run([*wrk, url], capture_output=True, text=True, check=True).stdout  # noqa: S603
    counted = re.search(r"(\d+) requests in ([\d.]+)(ms|s)", told)
    if counted is None or re.search(r"Socket errors|Non-2xx", told):
        raise RuntimeError(f"wrk met errors:\n{told}")
    return int(counted[1]), float(counted[2]) / (1000 if counted[3] == "ms" else 1)


def _lua(targets: Sequence[Target]) -> str:
    lines = []
    for target in targets:
        headers = ", ".join(f'["{name}"] = "{value}"' for name, value in target.headers.items())
        lines.append(
            f'  requests[#requests + 1] = wrk.format("POST", "{target.path}", {{{headers}}}, [[{target.body}]])'
        )
    return "\n".join(
        [
            "local requests, turn = {}, 0",
            "function init(args)",
            *lines,
            "end",
            "function request()",
            "  turn = turn % #requests + 1",
            "  return requests[turn]",
            "end",
        ]
    )


def by_asyncio(targets: Sequence[Target], seconds: float) -> tuple[int, float]:
    """As `by_wrk`, without it."""
    return asyncio.run(_load([_request(target) for target in targets], targets[0].port, seconds))


def _request(target: Target) -> bytes:
    headers = {"Host": "127.0.0.1", **target.headers, "Content-Length": str(len(target.body))}
    lines = [f"POST {target.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", target.body]).encode()


async def _load(requests: Sequence[bytes], port: int, seconds: float) -> tuple[int, float]:
    turn = itertools.cycle(requests)
    begun = time.perf_counter()

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        done = 0
        while time.perf_counter() - begun < seconds:
            writer.write(next(turn))
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if length is None or not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"answered {head!r}")
            await reader.readexactly(int(length[1]))
            done += 1
        writer.close()
        return done

    done = sum(await asyncio.gather(*(one() for _ in range(CONNECTIONS))))
    return done, time.perf_counter() - begun
