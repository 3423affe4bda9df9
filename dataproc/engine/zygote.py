"""The zygote: walled in, it imports one module once, and forks the workers that run it.

It is process 1 of its PID namespace: when it goes, all below it goes. It reads nothing but frames of the server, and
never runs a session's call. Each worker lives in a PID namespace of its own, whose process 1 is a `cat` on a pipe that
the zygote holds: ending that ends the worker and everything it ever started, at once, and a worker keeps the ordinary
meaning of signals, which a process 1 does not have.

Standard library and the author's API only. Facts: pid_namespaces(7), unshare(2), pidfd_open(2).
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

from dataproc.engine import child, frames, seccomp
from dataproc.engine import syscalls as sys_
from dataproc.engine.confine import Walls
from dataproc.engine.rehearsal import Rehearsal

CONTROL = 3
PATIENCE = 2  # milliseconds without a word of the server until a spare is forked
CAT = next((path for path in ("/bin/cat", "/usr/bin/cat") if os.path.exists(path)), "cat")


@dataclass(slots=True)
class Fork:
    """A forked worker: its pid, process 1 of its namespace (None without namespaces), and the line to it."""

    pid: int
    pidfd: int
    init: int | None
    hold: int | None
    line: socket.socket
    worker: int | None = None  # None: a spare that no session has touched

    def kill(self) -> None:
        """End it and all that it started."""
        os.kill(self.init if self.init is not None else self.pid, signal.SIGKILL)


class Zygote:
    """Answers the server's frames: describe, spawn, kill."""

    def __init__(self, control: socket.socket, config: dict[str, Any]) -> None:
        self.control = control
        self.walls = Walls.of(config["walls"])
        self.source: dict[str, str] | None = config["module"]
        self.preload: bool = config["preload"]
        self.most_spares: int = config["spares"]
        self.spares = self.most_spares
        self.forks: dict[int, Fork] = {}  # by pidfd
        self.code = child.Code(self.source)
        self.rehearsal: Rehearsal | None = None
        self.own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY) if self.walls.namespaces else -1

    def serve(self) -> None:
        """Until the server is gone."""
        if self.walls.seccomp:
            sys_.no_new_privileges()
            seccomp.install(seccomp.filter_bytes("zygote", self.walls.network))
            seccomp.filter_bytes("worker", self.walls.network)  # assembled once: every fork inherits it
        os.umask(0o022)
        if self.preload:
            self.code.load()
            self.rehearsal = Rehearsal()
            self.rehearsal.of_all(self.walls)
            gc.collect()
            gc.freeze()  # what is shared with the workers is not touched by their collector
        self.poll = select.poll()
        self.poll.register(self.control, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in self.poll.poll(self._patience())]
            if not ready:
                self.spawn_spare()
            for descriptor in ready:
                if descriptor != CONTROL:
                    self.reap(descriptor)
                elif (got := frames.receive(self.control)) is None:
                    return
                else:
                    self.answer(*got)

    def _patience(self) -> int | None:
        """Spares are made when nothing else is asked for."""
        spares = sum(fork.worker is None for fork in self.forks.values())
        return PATIENCE if self.preload and self.code.module and spares < self.spares else None

    def answer(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Do what the server asks. Whatever goes wrong, the descriptors are closed and the server is told."""
        try:
            match message["op"]:
                case "describe":
                    self.describe()
                case "spawn":
                    self.spawn(message, descriptors)
                case "kill":
                    self.signal(message["worker"], message["signal"])
        except OSError as error:
            frames.send(self.control, {"event": "failed", "worker": message.get("worker"), "reason": str(error)})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def describe(self) -> None:
        """Tell what the module offers. Only a zygote that imports is asked; else a worker without a session is."""
        frames.send(self.control, {"event": "described", **self.code.description()})

    def spawn(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Give a fork to a session."""
        self.spares = self.most_spares
        fork = next((fork for fork in self.forks.values() if fork.worker is None), None) or self.fork()
        fork.worker = message["worker"]
        frames.send(fork.line, message, descriptors)

    def spawn_spare(self) -> None:
        """Fork ahead of need."""
        try:
            self.fork()
        except OSError:
            self.spares = 0  # ahead of need is a courtesy; need itself will say what is wrong

    def fork(self) -> Fork:
        """A new worker process, waiting for its session."""
        line, other = socket.socketpair()
        init, hold = self._init() if self.walls.namespaces else (None, None)
        pid = os.fork()
        if pid == 0:
            _become_worker(other, self.control, self.walls, self.code, self.rehearsal)
        other.close()
        if self.walls.namespaces:
            sys_.setns(self.own_namespace, sys_.CLONE_NEWPID)
        fork = Fork(pid, os.pidfd_open(pid), init, hold, line)
        self.forks[fork.pidfd] = fork
        self.poll.register(fork.pidfd, select.POLLIN)
        return fork

    def _init(self) -> tuple[int, int]:
        """Process 1 of a new PID namespace, in which the next fork is process 2, and the pipe that holds it."""
        end, hold = os.pipe()
        sys_.unshare(sys_.CLONE_NEWPID)
        actions = [(os.POSIX_SPAWN_DUP2, end, 0), (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
        pid = os.posix_spawn(CAT, ["cat"], {}, file_actions=actions)
        os.close(end)
        return pid, hold

    def signal(self, worker: int, number: int) -> None:
        """Send SIGTERM to a worker, or SIGKILL to its whole tree."""
        for fork in self.forks.values():
            if fork.worker == worker:
                fork.kill() if number == signal.SIGKILL else signal.pidfd_send_signal(fork.pidfd, number)

    def reap(self, pidfd: int) -> None:
        """A worker has ended: end what is left of its namespace, then tell the server."""
        fork = self.forks.pop(pidfd)
        self.poll.unregister(pidfd)
        _, status = os.waitpid(fork.pid, 0)
        if fork.init is not None and fork.hold is not None:
            os.kill(fork.init, signal.SIGKILL)
            os.close(fork.hold)
            os.waitpid(fork.init, 0)
        else:
            end_orphans({one.pid for one in self.forks.values()})
        os.close(pidfd)
        fork.line.close()
        if fork.worker is None:
            self.spares = 0  # until the next session: where spares die by themselves, others would too, for ever
        else:
            frames.send(self.control, {"event": "exit", "worker": fork.worker, "status": status})


def end_orphans(known: set[int]) -> None:
    """Without namespaces: end what ended workers have left to this process, the reaper of all that it started."""
    while True:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            strays = {int(pid) for pid in file.read().split()} - known
        if not strays:
            return
        for pid in strays:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _become_worker(
    line: socket.socket, control: socket.socket, walls: Walls, code: child.Code, rehearsal: Rehearsal | None
) -> NoReturn:
    """In the forked process: nothing returns from here."""
    status = 70
    try:
        kept = line.detach()
        if kept != child.LINE:
            kept = os.dup2(kept, child.LINE, inheritable=False)
        control.detach()
        sys_.close_range(CONTROL, child.LINE - 1)
        sys_.close_range(child.LINE + 1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        child.main(socket.socket(fileno=kept), walls, code, rehearsal)
        status = 0
    except child.Terminated:
        status = 128 + signal.SIGTERM
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def main() -> None:
    """Serve the server on descriptor 3."""
    control = socket.socket(fileno=CONTROL)
    control.set_inheritable(False)
    sys_.prctl(sys_.PR_SET_CHILD_SUBREAPER, 1)
    first = frames.receive(control)
    if first is not None:
        Zygote(control, first[0]).serve()
    os._exit(0)
