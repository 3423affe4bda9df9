"""The worker: one confined process that runs the calls of one session in one module, one at a time.

It is forked from the zygote, takes its session's folders, gives up everything else (confine.py), and serves one private
socket until that is closed. What it says is hostile input to the server. Standard library and the author's API only.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataproc.engine import bounds, confine, frames, mounts
from dataproc.engine.forks import Forks

if TYPE_CHECKING:
    from dataproc.engine.rehearsal import Rehearsal
    from dataproc.module import Module, Reply

SERVER, LOG, LINE = 3, 4, 5  # the server's socket, the run's log, and until they have come the line to the zygote
BLOCK = 512  # bytes in a block of getrusage(2)
FLUSH_C = ctypes.PyDLL(None).fflush
PREVIEW = 1024  # characters of a result that became an artifact


class Terminated(BaseException):
    """SIGTERM during a run: unwinds the method, so that its `finally` blocks run."""


class Code:
    """The module of this process: where it is, and what became of importing it."""

    def __init__(self, source: dict[str, str] | None) -> None:
        self.source = source
        self.module: Module | None = None
        self.broken: str | None = None

    def load(self) -> None:
        """Import it; a failure is kept as its reason."""
        if self.source is None or self.module is not None or self.broken is not None:
            return
        from dataproc.module import ModuleBroken, load

        try:
            self.module = load(**self.source)  # type: ignore[arg-type]
        except ModuleBroken as error:
            self.broken = error.reason

    def description(self) -> dict[str, Any]:
        """What the module offers, or why it cannot be used."""
        self.load()
        return {"description": self.module.describe()} if self.module is not None else {"broken": self.broken or ""}


def main(line: socket.socket, walls: confine.Walls, code: Code, rehearsal: Rehearsal | None) -> None:
    """Get ready for a session, wait for it, take it, and serve it."""
    for number in (SERVER, LOG):
        os.dup2(line.fileno(), number, inheritable=False)  # nothing else is to get these numbers meanwhile
    confinement = confine.Confinement(walls)
    Forks().register()
    if rehearsal is not None and walls.namespaces and not select.select([line], [], [], 0)[0]:
        rehearsal.of_one()  # nobody waits
    got = frames.receive(line)
    if got is None:
        return  # a spare whose zygote ended
    message, (server, log, *trees) = got
    line.close()
    for number, descriptor in ((SERVER, server), (LOG, log)):
        os.dup2(descriptor, number, inheritable=False)
        os.close(descriptor)
    places = confine.Places(message["places"], dict(zip(message["trees"], trees, strict=True)))
    layers = confinement.finish(places, bounds.Limits(**message["limits"]))
    Worker(socket.socket(fileno=SERVER), LOG, message, places.paths, code).serve(layers)


class Worker:
    """Serves one session's calls of one module."""

    def __init__(
        self, server: socket.socket, log: int, message: dict[str, Any], places: dict[str, str], code: Code
    ) -> None:
        self.server, self.log, self.code = server, log, code
        self.session_id: str = message["session"]
        self.result_limit: int = message["result_limit"]
        self.result_max: int = message["result_max"]
        self.paths = {name: Path(path) for name, path in places.items()}
        self.work = places["work"]
        self.cache: dict[str, Any] = {}
        self.used = (0.0, 0, 0)  # at the last asking: seconds of CPU, blocks read and written

    def serve(self, layers: list[str]) -> None:
        """Until the server closes the socket."""
        if self.work != mounts.WORK:
            at_home(self.work)
        signal.signal(signal.SIGTERM, _terminate)  # nobody sends it but to end a run
        self.usage()
        frames.send(self.server, {"ready": True, "layers": layers})
        for message in frames.listen(self.server):
            if message["op"] == "run":
                self.run(message)
            elif message["op"] == "describe":
                frames.send(self.server, self.code.description())

    @cached_property
    def api(self) -> Any:
        """The author's API: pydantic is imported when the module is, not before."""
        from dataproc import module

        return module

    def run(self, message: dict[str, Any]) -> None:
        """One call, from its frame to its answer. What it left running or lying about is gone before the answer."""
        self.code.load()
        if self.code.module is None:
            frames.send(self.server, {"done": "broken", "reason": self.code.broken})
            return
        standard_streams(self.log)
        os.chdir(self.work)
        reply = self.code.module.invoke(message["method"], self.context(message), message["params"])
        self.tidy()
        answer = self.answer(message["run"], reply)
        self.server.sendall(frames.frame(b'{"usage":%b,%b' % (self.usage(), answer[1:])))

    def context(self, message: dict[str, Any]) -> Any:
        """What the method is given."""
        paths = self.paths
        return self.api.Context(
            paths["session"], work=paths["work"], application=paths.get("application"), locks=paths["locks"],
            input={name: paths["session"] / path for name, path in message["input"].items()},
            output={name: paths["session"] / path for name, path in message["output"].items()},
            run_id=message["run"], session_id=self.session_id, cache=self.cache,
            report=self.report, cancelled=self.cancelled,
        )  # fmt: skip

    def report(self, progress: dict[str, Any]) -> None:
        """Send a line of progress; once the server has gone there is nobody to tell."""
        with contextlib.suppress(BrokenPipeError):
            frames.send(self.server, {"progress": progress})

    def cancelled(self) -> bool:
        """During a run the server sends nothing but the wish to end it, and it hangs up only to end it too."""
        return bool(select.select([self.server], [], [], 0)[0])

    def tidy(self) -> None:
        """After a run: every process but this one ended, output written out, the work directory empty."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        FLUSH_C(None)
        ended, emptied = end_others(), empty(self.work)
        if ended or not emptied:  # a library that keeps a pool would wait for it for ever in the next run
            frames.send(self.server, {"spent": True})

    def usage(self) -> bytes:
        """What was used since this was last asked: microseconds of CPU, most memory so far, bytes read and written."""
        own, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime
        read, written = own.ru_inblock + theirs.ru_inblock, own.ru_oublock + theirs.ru_oublock
        (before, read_before, written_before), self.used = self.used, (seconds, read, written)
        peak = max(own.ru_maxrss, theirs.ru_maxrss) * 1024
        moved = ((read - read_before) * BLOCK, (written - written_before) * BLOCK)
        return b"[%d,%d,%d,%d]" % ((seconds - before) * 1_000_000, peak, *moved)

    def answer(self, run: str, reply: Reply) -> bytes:
        """The body of the frame that ends a run."""
        from dataproc.module import NotJson, Refused, Returned

        match reply:
            case Returned(payload, messages):
                notes = json.dumps(messages).encode() if messages else b"[]"
                if len(payload) > self.result_limit:
                    return self.artifact(run, payload, notes)
                return b'{"done":"returned","result":%b,"messages":%b}' % (payload, notes)
            case Refused(errors):
                return json.dumps({"done": "refused", "errors": errors}).encode()
            case NotJson(type, reason):
                return json.dumps({"done": "raised", "type": type, "message": reason, "not_json": True}).encode()
        told = {"type": reply.type, "message": reply.message, "traceback": reply.traceback}
        return json.dumps({"done": "raised", **told, "exit_code": reply.exit_code}).encode()

    def artifact(self, run: str, payload: bytes, notes: bytes) -> bytes:
        """A result too large to be answered is a file of the session, answered by its name."""
        if len(payload) > self.result_max:
            return json.dumps({"done": "too_large", "size": len(payload), "limit": self.result_max}).encode()
        path = f".dataproc/results/{run}.json"
        target = self.paths["session"] / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(".part")
            part.write_bytes(payload)
            part.rename(target)
        except OSError as error:
            text = f"the result of {len(payload)} bytes could not be written to the session: {error.strerror}"
            return json.dumps({"done": "raised", "type": type(error).__name__, "message": text}).encode()
        preview = payload[: 4 * PREVIEW].decode("utf-8", "ignore")[:PREVIEW]
        told = {
            "$artifact": path,
            "size": len(payload),
            "sha256": hashlib.sha256(payload).hexdigest(),
            "preview": preview,
        }
        return b'{"done":"returned","result":%b,"messages":%b}' % (json.dumps(told).encode(), notes)


def _terminate(*_: object) -> None:
    raise Terminated("the run was asked to end (SIGTERM)")


def at_home(work: str) -> None:
    """Without namespaces each worker's work directory has a name of its own; behind them the zygote was born so."""
    for name in ("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        os.environ[name] = work


def standard_streams(log: int) -> None:
    """Point 1 and 2 at the run's log again, whatever an earlier run did to them."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, f"__{name}__")
        if stream is None or stream.closed:
            stream = open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, f"__{name}__", stream)
        elif not stream.line_buffering:
            stream.reconfigure(line_buffering=True, encoding="utf-8", errors="backslashreplace")
        setattr(sys, name, stream)


def end_others() -> bool:
    """End every other process of this tree; whether there was one. They are rare, and asking is one system call."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    if os.getpid() == 2:  # a PID namespace of our own: -1 is everybody in it but us and its process 1
        os.kill(-1, signal.SIGKILL)
    # Waited for by name: a thread of this process may start another one while we wait for any.
    while left := children():
        for pid in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    return True


def children() -> list[int]:
    """Child processes of every thread of this one."""
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:
            found += map(int, file.read().split())
    return found


def empty(work: str) -> bool:
    """Remove what a run left in its work directory; whether nothing is left. Modes and depth may resist: the server,
    which deletes the whole directory with its worker, is better at that.
    """
    try:
        with os.scandir(work) as entries:
            left = list(entries)
        for entry in left:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
    except (OSError, RecursionError):
        return False
    return True
