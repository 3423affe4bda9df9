"""The filters: each forbidden call answers with its error, and what programs need goes on working."""

from __future__ import annotations

import asyncio
import concurrent.futures.process
import concurrent.futures.thread
import ctypes
import ctypes.util
import datetime
import encodings.idna
import errno
import fcntl
import mmap
import multiprocessing.heap
import multiprocessing.pool
import multiprocessing.popen_fork
import multiprocessing.synchronize
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import zoneinfo
from collections.abc import Callable
from pathlib import Path

import pytest

from dataproc.engine import seccomp, syscalls

# A plain user cannot import in the fork: these have to be here before, though they are used by name nowhere.
assert encodings.idna
assert multiprocessing.popen_fork
assert multiprocessing.synchronize
assert multiprocessing.heap

WORDS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
EVERY = [(profile, network) for profile in ("zygote", "worker") for network in (False, True)]
STREAM, DGRAM, RAW, SEQPACKET = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET
UNIX, INET, INET6, NETLINK, VSOCK = socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, 40


def judge(program: bytes, number: int, *arguments: int, audit: int) -> int:
    """What the kernel's machine makes of a call: a run of the program over one `struct seccomp_data`."""
    data = struct.pack("<iIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:
                accumulator &= value
            case 0x06:
                return value
            case 0x15:
                at += yes if accumulator == value else no
            case 0x25:
                at += yes if accumulator > value else no
            case 0x45:
                at += yes if accumulator & value else no
            case _:
                raise AssertionError(f"no such instruction: {code:#x}")


def errno_of(verdict: int) -> int:
    return 0 if verdict == seccomp.ALLOW else verdict - seccomp.ERRNO


@pytest.fixture(params=WORDS)
def machine(request: pytest.FixtureRequest) -> str:
    """The name of an instruction set; the decisions are tried without running on it."""
    return request.param


def tried(machine: str, profile: seccomp.Profile, network: bool, name: str, *arguments: int) -> int:
    """The errno that the filters of that machine give the call `name`; a worker is under the zygote's, too."""
    number = syscalls.MACHINES[machine].numbers[name]
    over: tuple[seccomp.Profile, ...] = ("zygote",) if profile == "zygote" else ("zygote", "worker")
    programs = [seccomp.filter_bytes(each, network, machine) for each in over]
    return max(errno_of(judge(program, number, *arguments, audit=WORDS[machine])) for program in programs)


@pytest.mark.parametrize(("profile", "network"), EVERY)
def test_a_foreign_instruction_set_is_death(machine, profile, network):
    """A call made in another machine's convention (32 bit on x86_64, say) kills: its numbers mean other things."""
    program = seccomp.filter_bytes(profile, network, machine)
    assert judge(program, 1, audit=0x40000003) == seccomp.KILL


@pytest.mark.parametrize(("profile", "network"), EVERY)
def test_numbers_nobody_looked_at_are_missing(machine, profile, network):
    """Calls newer than the list, and the x32 range, answer as if the kernel had none."""
    program = seccomp.filter_bytes(profile, network, machine)
    for number in (seccomp.NEWEST + 1, 512, 0x40000000, 0x40000000 | 59, 0xFFFFFFFF):
        signed = number - 2**32 if number >= 2**31 else number
        assert errno_of(judge(program, signed, audit=WORDS[machine])) == errno.ENOSYS


@pytest.mark.parametrize(("profile", "network"), EVERY)
def test_ordinary_calls_pass(machine, profile, network):
    """What is not named is allowed."""
    program = seccomp.filter_bytes(profile, network, machine)
    for number in (424, 437, 439, 441, 448, 457, seccomp.NEWEST):
        assert judge(program, number, audit=WORDS[machine]) == seccomp.ALLOW
    for name in ("clone", "getpid", "memfd_create", "pidfd_open", "close_range", "landlock_create_ruleset", "seccomp"):
        assert tried(machine, profile, network, name) == 0


@pytest.mark.parametrize("name", ["unshare", "setns", "mount", "open_tree", "pivot_root", "umount2"])
def test_only_the_zygote_makes_surroundings(machine, name):
    """Mounts and namespaces are the zygote's to make, and never a worker's."""
    assert tried(machine, "zygote", False, name) == 0
    assert tried(machine, "worker", False, name) == errno.EPERM


@pytest.mark.parametrize("flag", [1 << bit for bit in (15, 17, 25, 26, 27, 28, 29, 30)])
def test_clone_makes_no_namespace_and_no_sibling(machine, flag):
    """A worker's clone may have every flag but those of new namespaces, and CLONE_PARENT, which leaves its tree."""
    threads = 0x3D0F00 | signal.SIGCHLD
    assert tried(machine, "worker", False, "clone", threads) == 0
    assert tried(machine, "worker", False, "clone", threads | flag) == errno.EPERM
    assert tried(machine, "zygote", False, "clone", threads | flag) == 0


def test_clone3_sends_the_c_library_back_to_clone(machine):
    """clone3 hides its flags in memory, so it must look missing rather than forbidden."""
    assert {tried(machine, profile, False, "clone3") for profile in ("zygote", "worker")} == {errno.ENOSYS}


@pytest.mark.parametrize("family", [UNIX, INET, INET6, NETLINK, VSOCK, 38, socket.AF_PACKET])
@pytest.mark.parametrize("kind", [STREAM, DGRAM, RAW, SEQPACKET])
@pytest.mark.parametrize("profile", ["zygote", "worker"])
def test_without_network_there_is_no_socket(machine, profile, family, kind):
    """No family and no kind gives a socket."""
    assert tried(machine, profile, False, "socket", family, kind | socket.SOCK_CLOEXEC) == errno.EACCES


def test_with_network_there_are_tcp_and_udp_alone(machine):
    """The internet's two families, two kinds and their own protocols; nothing else of those families."""
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    allowed = {
        (family, kind, protocol)
        for family in (UNIX, INET, INET6, NETLINK, VSOCK, 38)
        for kind in (STREAM, DGRAM, RAW, SEQPACKET)
        for protocol in (0, 1, 6, 17, 132, 136, 262)
        if tried(machine, "worker", True, "socket", family, kind | flags, protocol) == 0
    }
    assert allowed == {(f, k, p) for f in (INET, INET6) for k in (STREAM, DGRAM) for p in (0, 6, 17)}
    assert tried(machine, "worker", True, "connect") == 0


@pytest.mark.parametrize(("profile", "network"), EVERY)
def test_socket_pairs_are_streams(machine, profile, network):
    """A stream pair is allowed with its flags; a datagram pair, which can send to any path, never."""
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    assert tried(machine, profile, network, "socketpair", UNIX, STREAM | flags) == 0
    for family, kind in ((UNIX, DGRAM), (UNIX, SEQPACKET), (UNIX, DGRAM | flags), (INET, STREAM), (30, STREAM)):
        assert tried(machine, profile, network, "socketpair", family, kind) == errno.EACCES


def test_the_high_half_of_an_argument_changes_nothing(machine):
    """The kernel takes these arguments as 32 bit; a filter that compared 64 could be walked around."""
    high = 7 << 32
    assert tried(machine, "worker", False, "socketpair", UNIX | high, DGRAM | high) == errno.EACCES
    assert tried(machine, "worker", False, "ioctl", 0, 0x5412 | high) == errno.EPERM


def test_prctl_and_personality_are_looked_into(machine):
    """A worker may name itself and ask for its personality; it becomes no subreaper and changes no personality."""
    assert tried(machine, "worker", False, "prctl", syscalls.PR_SET_NAME) == 0
    assert tried(machine, "worker", False, "prctl", syscalls.PR_SET_CHILD_SUBREAPER) == errno.EPERM
    assert tried(machine, "zygote", False, "prctl", syscalls.PR_SET_CHILD_SUBREAPER) == 0
    assert tried(machine, "worker", False, "personality", 0xFFFFFFFF) == 0
    assert tried(machine, "worker", False, "personality", 0x0400000) == errno.EPERM


def test_a_name_that_no_machine_has_is_a_mistake():
    """A misspelt call would be allowed in silence; the assembler refuses it."""
    with pytest.raises(KeyError, match="ptracee"):
        seccomp.assemble({"ptracee": seccomp.NO}, syscalls.machine())


# From here on in real processes, under the real filter.


def enforced(profile: seccomp.Profile = "worker", network: bool = False) -> None:
    syscalls.no_new_privileges()
    seccomp.install(seccomp.filter_bytes("zygote", network))
    if profile == "worker":
        seccomp.install(seccomp.filter_bytes("worker", network))


JUDGED = {**seccomp.judgements("zygote", False), **seccomp.judgements("worker", False)}
REFUSED = sorted({name for name, steps in JUDGED.items() if steps == seccomp.NO} & set(syscalls.machine().numbers))


def test_each_forbidden_call_is_refused(forked):
    """Every call of the list answers EPERM, whatever it is asked, before the kernel looks at its arguments."""

    def child() -> dict[str, int | None]:
        enforced()
        answers = {}
        for name in REFUSED:
            try:
                syscalls.call(name, 0, 0, 0, 0, 0)
            except OSError as error:
                answers[name] = error.errno
        return answers

    assert forked(child) == dict.fromkeys(REFUSED, errno.EPERM)
    assert len(REFUSED) > 50


def test_sockets_fail_cleanly(forked):
    """A library that tries a socket gets a PermissionError, and a name cannot be looked up, without a crash."""

    def child() -> list[str]:
        enforced()
        tries: list[Callable[[], object]] = [
            socket.socket,
            lambda: socket.socket(UNIX, DGRAM),
            lambda: socket.socketpair(UNIX, DGRAM),
            lambda: socket.create_connection(("127.0.0.1", 1)),
            lambda: socket.getaddrinfo("example.invalid", 80),
        ]
        return [_kind(one) for one in tries]

    assert forked(child) == ["PermissionError"] * 4 + ["gaierror"]


def test_with_network_a_loopback_connection_works(forked):
    """Under the network filter a server and a client meet, and a numeric address is looked up."""

    def child() -> bytes:
        enforced(network=True)
        with socket.create_server(("127.0.0.1", 0)) as server:
            host, port = server.getsockname()
            found = socket.getaddrinfo(host, port, type=STREAM)[0][4]
            with socket.create_connection((str(found[0]), port)) as client, server.accept()[0] as met:
                client.sendall(b"hello")
                return met.recv(5)

    assert forked(child) == b"hello"


def _kind(action: Callable[[], object]) -> str:
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "worked"


def _double(number: int) -> int:
    return 2 * number


def _subprocess() -> object:
    return subprocess.run("echo $((1 + 1)); cat", shell=True, input=b"in", capture_output=True, check=True).stdout


def _threads() -> object:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(_double, range(4)))


def _fork_pool() -> object:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(_double, range(4))


def _process_executor() -> object:
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        return list(pool.map(_double, range(4)))


def _spawned() -> object:
    if not os.access(sys.executable, os.X_OK):
        return 0  # the interpreter of these tests lies where a plain user cannot read it
    process = multiprocessing.get_context("spawn").Process(target=print)
    process.start()
    process.join(30)
    return process.exitcode


def _loop() -> object:
    async def main() -> bytes:
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1)
        reader, writer = await asyncio.open_connection(sock=pair[0])
        pair[1].sendall(b"ping\n")
        line = await reader.readline()
        writer.close()
        await asyncio.to_thread(_double, 1)
        return line + (await process.communicate(b"pong"))[0]

    pair = socket.socketpair()
    with pair[1]:
        return asyncio.run(main())


def _memory() -> object:
    with mmap.mmap(-1, 8192) as shared, open(os.memfd_create("name"), "r+b") as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 4096) as mapped:
            mapped[:2] = shared[:2] = b"ok"
            return mapped[:2] + shared[:2]


def _events() -> object:
    with open(os.eventfd(1), "rb", buffering=0) as event, select.epoll() as poll:
        poll.register(event.fileno(), select.EPOLLIN)
        return [mask for _, mask in poll.poll(5)]


def _c_library() -> object:
    libc = ctypes.CDLL(ctypes.util.find_library("c") or None, use_errno=True)
    opened = [libc.inotify_init1(0), libc.timerfd_create(1, 0), libc.signalfd(-1, bytes(128), 0)]
    return [descriptor >= 0 for descriptor in opened]


def _files() -> object:
    with tempfile.NamedTemporaryFile() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
        os.posix_fallocate(file.fileno(), 0, 10)
        os.fchmod(file.fileno(), 0o600)
        return os.fstat(file.fileno()).st_size


def _time() -> object:
    return datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset().seconds  # type: ignore[union-attr]


def _pseudo_terminal() -> object:
    return list(map(os.close, os.openpty()))


def _synchronisation() -> object:
    lock, done = threading.Lock(), threading.Event()
    threading.Timer(0, done.set).start()
    with lock:
        return done.wait(30)


NEEDED = {
    _subprocess: b"2\nin",
    _threads: [0, 2, 4, 6],
    _fork_pool: [0, 2, 4, 6],
    _process_executor: [0, 2, 4, 6],
    _spawned: 0,
    _loop: b"ping\npong",
    _memory: b"okok",
    _events: [select.EPOLLIN],
    _c_library: [True, True, True],
    _files: 10,
    _time: 7200,
    _pseudo_terminal: [None, None],
    _synchronisation: True,
}


@pytest.mark.parametrize("profile", ["zygote", "worker"])
@pytest.mark.parametrize("use", NEEDED, ids=lambda use: use.__name__)
def test_what_programs_need_works(forked, profile, use):
    """Processes, threads, pools, event loops, shared memory, locks and clocks work under both filters."""

    def child() -> object:
        enforced(profile)
        return use()

    assert forked(child) == NEEDED[use]


def test_the_filters_stack(forked):
    """A worker's filter on top of its zygote's: both are in force."""

    def child() -> tuple[str, str]:
        enforced("zygote")
        before = _kind(lambda: syscalls.unshare(0))
        enforced("worker")
        return before, _kind(lambda: syscalls.unshare(0))

    assert forked(child) == ("worked", "PermissionError")


def test_the_filter_is_shown_by_the_process(forked):
    """The kernel says that a filter is in force."""

    def child() -> str:
        enforced()
        return Path("/proc/self/status").read_text()

    assert "Seccomp:\t2" in forked(child)
