"""Tries to get out while it is being imported; the targets lie beside it, put there by the test."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from dataproc import Module

module = Module("importing", version="1.0.0", description="Tries to get out at import.")

TARGETS = json.loads(Path(__file__).with_name("targets.json").read_text())
LIBC = ctypes.CDLL(None, use_errno=True)


def _outcome(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    except Exception as error:
        return type(error).__name__
    return "worked"


def _pair() -> None:
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"from the import", TARGETS["datagram"])


def _datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"from the import", ("127.0.0.1", TARGETS["udp"]))


def _stream() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(TARGETS["stream"])
        sock.sendall(b"from the import")


def _trace(pid: int) -> None:
    number = 101 if os.uname().machine == "x86_64" else 117
    if LIBC.syscall(number, 16, pid, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


TRIES: dict[str, str] = {
    "tcp": _outcome(lambda: socket.create_connection(("127.0.0.1", TARGETS["tcp"]), timeout=5)),
    "udp": _outcome(_datagram),
    "unix": _outcome(_stream),
    "pair": _outcome(_pair),
    **{f"read {path}": _outcome(lambda path=path: Path(path).read_bytes()) for path in TARGETS["files"]},
    **{f"list {path}": _outcome(lambda path=path: os.listdir(path)) for path in TARGETS["folders"]},
    **{f"write {path}": _outcome(lambda path=path: Path(path, "x").write_text("x")) for path in TARGETS["folders"]},
    **{f"signal {pid}": _outcome(lambda pid=pid: os.kill(pid, signal.SIGKILL)) for pid in TARGETS["pids"]},
    **{f"trace {pid}": _outcome(lambda pid=pid: _trace(pid)) for pid in TARGETS["pids"]},
    "code": _outcome(lambda: Path(__file__).write_text("x")),
    "setuid": _outcome(lambda: os.setuid(0)),
}
ENVIRONMENT = dict(os.environ) | {"/proc/self/environ": Path("/proc/self/environ").read_bytes().decode()}
PROCESSES = {
    pid: Path("/proc", pid, "cmdline").read_bytes().decode() for pid in filter(str.isdigit, os.listdir("/proc"))
}


@module.method
def tries() -> dict[str, str]:
    """What came of each try."""
    return TRIES


@module.method
def environment() -> dict[str, str]:
    """What the zygote's environment was."""
    return ENVIRONMENT


@module.method
def processes() -> dict[str, str]:
    """What processes the zygote saw."""
    return PROCESSES
