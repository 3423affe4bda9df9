"""Tries to reach what is not its own, and tells what came of it."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from dataproc import Context, Module

module = Module("prober", version="1.0.0", description="Tries to get out.")

LIBC = ctypes.CDLL(None, use_errno=True)
MARKER = b"from the prober"


def outcome(action: Callable[[], object]) -> str:
    """`worked`, or the name of the errno or of the exception."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    except Exception as error:
        return type(error).__name__
    return "worked"


@module.method
def read(path: str) -> dict[str, str]:
    """What a path gives: its text, or why not."""
    try:
        return {"outcome": "worked", "text": Path(path).read_bytes()[:4096].decode(errors="replace")}
    except OSError as error:
        return {"outcome": errno.errorcode[error.errno or 0]}


@module.method
def write(path: str, text: str = "written by the prober") -> str:
    """Write a file."""
    return outcome(lambda: Path(path).write_text(text))


@module.method
def listing(path: str) -> list[str]:
    """The names in a folder; empty where it cannot be listed."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


@module.method
def writes(paths: list[str]) -> dict[str, str]:
    """Try each way of changing what is at each path."""

    def every(path: str) -> dict[str, Callable[[], object]]:
        return {
            "open": lambda: os.close(os.open(path, os.O_WRONLY)),
            "append": lambda: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)),
            "beside": lambda: Path(path).with_name("planted").write_text("x"),
            "truncate": lambda: os.truncate(path, 0),
            "rename": lambda: os.rename(path, path + ".gone"),
            "remove": lambda: os.unlink(path),
            "chmod": lambda: os.chmod(path, 0o777),
            "times": lambda: os.utime(path),
        }

    return {f"{path} {name}": outcome(action) for path in paths for name, action in every(path).items()}


@module.method
def plant(ctx: Context, target: str, name: str, hard: bool = False) -> str:
    """Leave a link in the session directory."""
    return outcome(lambda: (os.link if hard else os.symlink)(target, ctx.session / name))


@module.method
def find(roots: list[str], needles: list[str]) -> list[str]:
    """Every file and folder below these folders whose path holds one of the texts."""
    return [
        os.path.join(folder, name)
        for root in roots
        for folder, folders, files in os.walk(root)
        for name in (*folders, *files)
        if any(needle in os.path.join(folder, name) for needle in needles)
    ]


@module.method
def processes() -> dict[str, dict[str, str]]:
    """What /proc shows of each process: its command, and what came of looking into it."""
    shown = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        place = Path("/proc", pid)
        shown[pid] = {
            "command": place.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode().strip(),
            **{name: outcome(place.joinpath(name).read_bytes) for name in ("environ", "mem", "maps", "auxv", "stack")},
            **{name: outcome(lambda link=place / name: os.listdir(link)) for name in ("cwd", "root", "map_files")},
            **{f"fd/{fd}": outcome(lambda link=place / "fd" / fd: os.readlink(link)) for fd in _names(place / "fd")},
        }
    return shown


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


@module.method
def environment() -> dict[str, str]:
    """The process's own environment, as the kernel and as Python know it."""
    at_start = Path("/proc/self/environ").read_bytes().decode(errors="replace")
    return {**os.environ, "/proc/self/environ": at_start}


@module.method
def whoami() -> dict[str, str]:
    """What the kernel says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@module.method
def memory_of_own(needles: list[str]) -> dict[str, bool]:
    """Whether a text can be found in this process's memory, which began as a copy of its zygote's."""
    found = dict.fromkeys(needles, False)
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            if rights.startswith("rw") and end - start < 2**28 and "[v" not in line:
                memory.seek(start)
                text = memory.read(end - start)
                # reversed here, so that the needle itself is not what is found
                found = {needle: known or needle[::-1].encode() in text for needle, known in found.items()}
    return found


@module.method
def connect(
    host: str, tcp: int, udp: int, stream_path: str, datagram_path: str, abstract: str, others: list[int]
) -> dict[str, str]:
    """Try to reach a listener in every way there is."""

    def tcp_to(port: int) -> None:
        with socket.create_connection((host, port), timeout=5) as sock:
            sock.sendall(MARKER)

    def sent(family: int, kind: int, address: object) -> Callable[[], object]:
        def send() -> None:
            with socket.socket(family, kind) as sock:
                if kind == socket.SOCK_STREAM:
                    sock.connect(address)
                    sock.sendall(MARKER)
                else:
                    sock.sendto(MARKER, address)

        return send

    def by_pair(kind: int, address: object) -> Callable[[], object]:
        def send() -> None:
            one, other = socket.socketpair(socket.AF_UNIX, kind)
            with closing(one), closing(other):
                one.sendto(MARKER, address)

        return send

    tries = {
        "tcp": lambda: tcp_to(tcp),
        "udp": sent(socket.AF_INET, socket.SOCK_DGRAM, (host, udp)),
        "unix stream": sent(socket.AF_UNIX, socket.SOCK_STREAM, stream_path),
        "unix datagram": sent(socket.AF_UNIX, socket.SOCK_DGRAM, datagram_path),
        "abstract": sent(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + abstract),
        "datagram pair": by_pair(socket.SOCK_DGRAM, datagram_path),
        "packet pair": by_pair(socket.SOCK_SEQPACKET, datagram_path),
        "stream pair": by_pair(socket.SOCK_STREAM, stream_path),
        "lookup": lambda: socket.getaddrinfo("localhost", tcp),
        **{f"tcp {port}": lambda port=port: tcp_to(port) for port in others},
        **{f"descriptor {number}": _resend(number, datagram_path) for number in range(64)},
    }
    return {name: outcome(action) for name, action in tries.items()}


def _resend(number: int, path: str) -> Callable[[], object]:
    """Point an inherited descriptor somewhere else."""

    def send() -> None:
        sock = socket.socket(fileno=os.dup(number))
        with closing(sock):
            sock.connect(path)
            sock.sendto(MARKER, path)

    return send


@module.method
def signals(pids: list[int]) -> dict[str, str]:
    """Try to signal everybody: pids given, all small ones, and the groups."""
    me = {os.getpid(), os.getppid(), os.getpgid(0)} - {0, 1}
    targets = [pid for pid in (*pids, *range(3, 400)) if pid not in me]
    tries = {str(pid): outcome(lambda pid=pid: os.kill(pid, signal.SIGKILL)) for pid in targets}
    tries["1"] = outcome(lambda: os.kill(1, signal.SIGKILL))
    tries["pidfd"] = outcome(lambda: signal.pidfd_send_signal(os.pidfd_open(pids[0]), signal.SIGKILL))
    tries["parent"] = outcome(lambda: os.kill(os.getppid(), signal.SIGKILL) if os.getppid() else 1 / 0)
    return {name: result for name, result in tries.items() if result != "ESRCH"}


@module.method
def traces(pids: list[int]) -> dict[str, str]:
    """Try to trace and read everybody."""

    def ptrace(request: int, pid: int) -> None:
        _syscall(101 if os.uname().machine == "x86_64" else 117, request, pid, 0, 0)

    def read_memory(pid: int) -> None:
        there = ctypes.create_string_buffer(16)
        _syscall(310 if os.uname().machine == "x86_64" else 270, pid, ctypes.addressof(there), 1, 0, 1, 0)

    tries: dict[str, Callable[[], object]] = {"traceme": lambda: ptrace(0, 0)}
    for pid in (*pids, 1, os.getpid()):
        tries[f"attach {pid}"] = lambda pid=pid: ptrace(16, pid)
        tries[f"seize {pid}"] = lambda pid=pid: ptrace(0x4206, pid)
        tries[f"vm {pid}"] = lambda pid=pid: read_memory(pid)
    for pid in (*pids, 1):
        tries[f"mem {pid}"] = lambda pid=pid: open(f"/proc/{pid}/mem", "r+b").close()
    return {name: outcome(action) for name, action in tries.items()}


def _syscall(number: int, *arguments: int) -> int:
    result = LIBC.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


@module.method
def privileges(ctx: Context) -> dict[str, str]:
    """Try to become more than this process is."""

    def libc(name: str, *arguments: object) -> Callable[[], object]:
        def call() -> None:
            if getattr(LIBC, name)(*arguments) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))

        return call

    tries: dict[str, Callable[[], object]] = {
        "setuid": lambda: os.setuid(0),
        "setresuid": lambda: os.setresuid(0, 0, 0),
        "setgid": lambda: os.setgid(0),
        "setgroups": lambda: os.setgroups([0]),
        "user namespace": libc("unshare", 0x10000000),
        "mount namespace": libc("unshare", 0x20000),
        "network namespace": libc("unshare", 0x40000000),
        "clone": lambda: _syscall(56 if os.uname().machine == "x86_64" else 220, 0x10000000 | 17, 0, 0, 0, 0),
        "enter": libc("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY) if os.access("/proc/1/ns/mnt", 4) else 0, 0),
        "mount": libc("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, None),
        "bind": libc("mount", b"/session", b"/tmp", None, 4096, None),
        "remount": libc("mount", None, b"/module", None, 32 | 4096, None),
        "move a mount": _move_mount,
        "unmount": libc("umount2", b"/proc", 2),
        "chroot": lambda: os.chroot("/tmp"),
        "device": lambda: os.mknod(ctx.session / "disk", 0o060600, os.makedev(254, 0)),
        "hostname": libc("sethostname", b"other", 5),
        "uid map": lambda: Path("/proc/self/uid_map").write_text("0 0 1"),
        "sysctl": lambda: Path("/proc/sys/kernel/core_pattern").write_text("|/session/run"),
        "sysrq": lambda: Path("/proc/sysrq-trigger").write_text("b"),
        "priority": lambda: os.nice(-5),
        "limit": _raise_limits,
        "immunity": lambda: Path("/proc/self/oom_score_adj").write_text("-1000"),
        "su": lambda: subprocess.run(["su", "-c", "true"], check=True, capture_output=True),
        "setuid file": lambda: _setuid_file(ctx.session / "mine"),
    }
    return {name: outcome(action) for name, action in tries.items()}


def _move_mount() -> None:
    at, source, target = -100, ctypes.create_string_buffer(b"/tmp"), ctypes.create_string_buffer(b"/work")
    _syscall(429, at, ctypes.addressof(source), at, ctypes.addressof(target), 0)


def _raise_limits() -> None:
    import resource

    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (hard + 1, hard + 1))


def _setuid_file(path: Path) -> None:
    path.write_bytes(Path("/usr/bin/id").read_bytes())
    path.chmod(0o6755)
    told = subprocess.run([path, "-u"], capture_output=True, check=True, text=True).stdout.strip()
    if told != "0":
        raise PermissionError(errno.EPERM, f"uid {told}")


@module.method
def own_code() -> dict[str, str]:
    """Try to change the code that this module, and the interpreter, are made of."""
    here = Path(__file__)
    places = {"file": here, "library": Path(os.__file__), "api": Path(Module.__init__.__code__.co_filename)}
    tries = {}
    for name, path in places.items():
        tries[f"{name} write"] = outcome(lambda path=path: os.close(os.open(path, os.O_WRONLY)))
        tries[f"{name} replace"] = outcome(lambda path=path: path.unlink())
        tries[f"{name} beside"] = outcome(lambda path=path: path.with_name("sitecustomize.py").write_text("x"))
        tries[f"{name} chmod"] = outcome(lambda path=path: path.chmod(0o666))
    return tries
