"""The keeper: a small trusted process that starts zygotes and opens mounts for the server.

It is process 1 of a PID namespace that holds every zygote and worker, and it ends when the server's end of its socket
is closed: whatever kills the server, the kernel then ends all below. As root it holds the machine's mounts; as a plain
user it holds them inside a user namespace of its own. It runs no module code, and the standard library is all it needs.
Facts: user_namespaces(7), pid_namespaces(7), clone(2) for CLONE_PARENT.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import traceback
from typing import Any

from dataproc.engine import frames, mounts, namespaces, scan
from dataproc.engine import syscalls as sys_


class Keeper:
    """Answers the server's frames, one at a time, and tells it which zygotes have ended."""

    def __init__(self, server: socket.socket, walled: bool) -> None:
        self.server = server
        self.walled = walled
        self.zygotes: dict[int, int] = {}  # pid -> id
        self.pidfds: dict[int, int] = {}  # pidfd -> pid
        self.watch = scan.Watch()

    def serve(self) -> None:
        """Until the server is gone."""
        poll = select.poll()
        poll.register(self.server, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll(self.watch.pause() * 1000):
                if descriptor == self.server.fileno():
                    got = frames.receive(self.server)
                    if got is None:
                        return
                    if (pidfd := self.answer(*got)) is not None:
                        poll.register(pidfd, select.POLLIN)
                else:
                    poll.unregister(descriptor)
                    self.reap(descriptor)
            for event in self.watch.tick():
                frames.send(self.server, event)

    def answer(self, message: dict[str, Any], descriptors: list[int]) -> int | None:
        """Do what the server asks; a pidfd to watch where a zygote was started."""
        try:
            match message["op"]:
                case "zygote":
                    return self.start(message, descriptors)
                case "mounts":
                    self.mounts(message)
                case "kill":
                    self.kill(message["id"])
                case "watch":
                    self.watch.add(message["worker"], message["pid_namespace"], message["memory"])
                case "unwatch":
                    self.watch.drop(message["worker"])
        except (OSError, ValueError, KeyError) as error:
            frames.send(self.server, {"reply": message.get("reply"), "error": f"{type(error).__name__}: {error}"})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return None

    def mounts(self, message: dict[str, Any]) -> None:
        """Detached mounts of the server's folders, for a worker."""
        opened: list[int] = []
        try:
            for path, read_only in message["paths"]:
                opened.append(mounts.detach(path, read_only=read_only))
            frames.send(self.server, {"reply": message["reply"]}, opened)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def start(self, message: dict[str, Any], descriptors: list[int]) -> int:
        """Start a zygote on the control socket and the log pipe given."""
        control, log = descriptors
        pid = self._walled(message, control, log) if self.walled else self._bare(message, control, log)
        pidfd = os.pidfd_open(pid)
        self.zygotes[pid], self.pidfds[pidfd] = message["id"], pid
        if self.walled:  # the import of a module is bounded too, and it runs here
            bounds = message["memory"], message["processes"]
            self.watch.add(-message["id"], scan.namespace_of(pid), *bounds)
        frames.send(self.server, {"reply": message["reply"]})
        return pidfd

    def _bare(self, message: dict[str, Any], control: int, log: int) -> int:
        pid = os.fork()
        if pid == 0:
            with _exit_on_error(log):
                os.setsid()
                sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
                namespaces.unprivileged(message["uid"])
                become(message, control, log)
        return pid

    def _walled(self, message: dict[str, Any], control: int, log: int) -> int:
        shown = mounts.detach_all(message["binds"])
        try:
            told, tell = os.pipe()
            stub = os.fork()
            if stub == 0:
                with _exit_on_error(log):
                    namespaces.enter(message["uid"], network=message["network"])
                    # The zygote has to be a child of the keeper and process 1 of the new namespace at once.
                    pid = sys_.call("clone", sys_.CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
                    if pid == 0:
                        mounts.enter_root(shown, message["links"], message["texts"], message["tmp"])
                        socket.sethostname("dataproc")
                        namespaces.keep_capabilities()
                        become(message, control, log)
                    os.write(tell, pid.to_bytes(4, "big"))
                    os._exit(0)
            os.close(tell)
            pid_bytes = os.read(told, 4)
            os.close(told)
            os.waitpid(stub, 0)
        finally:
            for descriptor, _, _ in shown:
                os.close(descriptor)
        if len(pid_bytes) < 4:
            raise ChildProcessError("the zygote's namespaces could not be entered")
        return int.from_bytes(pid_bytes, "big")

    def kill(self, wanted: int) -> None:
        """End a zygote; with its PID namespace goes all that it started."""
        for pid, known in self.zygotes.items():
            if known == wanted:
                os.kill(pid, signal.SIGKILL)

    def reap(self, pidfd: int) -> None:
        """A zygote has ended."""
        pid = self.pidfds.pop(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        number = self.zygotes.pop(pid)
        self.watch.drop(-number)
        frames.send(self.server, {"event": "zygote_exit", "id": number, "status": status})


class _exit_on_error:  # noqa: N801 - reads as a statement
    """In a forked child nothing may return into the parent's code: say what went wrong, and go."""

    def __init__(self, log: int) -> None:
        self.log = log

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if error is not None:
                os.write(self.log, "".join(traceback.format_exception(error)).encode())
        finally:
            os._exit(70)


def become(message: dict[str, Any], control: int, log: int) -> None:
    """Replace this process by the zygote: nothing of the keeper remains but the two descriptors."""
    null = os.open("/dev/null", os.O_RDWR)
    control, log = os.dup2(control, 101, inheritable=False), os.dup2(log, 100, inheritable=False)
    for number, descriptor in enumerate((null, log, log, control)):
        os.dup2(descriptor, number, inheritable=True)
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.execve(message["argv"][0], message["argv"], message["env"])  # noqa: S606 - no shell is wanted


def main() -> None:
    """`python -I -m dataproc.engine.keeper FD auto|off`: serve the server on that socket."""
    server = socket.socket(fileno=int(sys.argv[1]))
    sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
    why = "switched off" if sys.argv[2] == "off" else namespaces.enter_keeper()
    if why is None:
        pid = os.fork()
        if pid:
            server.close()
            _, status = os.waitpid(pid, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
        sys_.mount("proc", "/proc", "proc", sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC)
    frames.send(server, {"event": "hello", "namespaces": why is None, "why": why or ""})
    Keeper(server, walled=why is None).serve()
    os._exit(0)


if __name__ == "__main__":
    main()
