"""Landlock: what is not named can no longer be reached, whatever the user may otherwise do."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataproc.engine import landlock, syscalls
from dataproc.engine.landlock import Rules, Ruleset

pytestmark = pytest.mark.skipif(landlock.abi() < landlock.OLDEST, reason="no Landlock in this kernel")

SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may write to, with `mine` and `theirs` in it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        path = Path(name)
        for one in (path, path / "mine", path / "theirs"):
            one.mkdir(exist_ok=True)
            one.chmod(0o777)
        (path / "theirs" / "secret").write_text("secret")
        (path / "theirs" / "secret").chmod(0o666)
        (path / "mine" / "link").symlink_to(path / "theirs" / "secret")
        yield path


def refused(action: Callable[[], object]) -> int:
    """The errno that the action ends with; 0 if it works."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


def restrict(rules: Rules) -> frozenset[str]:
    syscalls.no_new_privileges()
    return Ruleset(rules).enforce()


def test_other_folders_cannot_be_read(forked, folder):
    """A file outside the rules cannot be opened: by its path, by `..`, or by a link that was planted before."""

    def child() -> list[int]:
        restrict(Rules(SYSTEM, write=(str(folder / "mine"),)))
        paths = (folder / "theirs/secret", folder / "mine/../theirs/secret", folder / "mine/link")
        return [refused(path.open) for path in paths] + [refused(lambda: os.listdir(folder))]

    assert forked(child) == [errno.EACCES] * 4


def test_other_folders_cannot_be_changed(forked, folder):
    """Nothing outside the rules can be written, truncated, linked into, renamed or removed."""

    def child() -> list[int]:
        restrict(Rules(SYSTEM, write=(str(folder / "mine"),)))
        secret, own = folder / "theirs/secret", folder / "mine/own"
        own.write_text("x")
        tries = (
            lambda: os.open(secret, os.O_WRONLY),
            lambda: os.truncate(secret, 0),
            lambda: os.link(own, folder / "theirs/own"),
            lambda: os.link(secret, folder / "mine/secret"),
            lambda: os.rename(secret, folder / "mine/secret"),
            lambda: os.unlink(secret),
            lambda: os.mkdir(folder / "theirs/new"),
        )
        return [refused(one) for one in tries]

    assert all(code in (errno.EACCES, errno.EXDEV) for code in forked(child))
    assert (folder / "theirs/secret").read_text() == "secret"


def test_write_places_can_be_used_in_full(forked, folder):
    """In its own place a process makes, renames across folders, links, truncates, locks and executes."""

    def child() -> str:
        restrict(Rules(SYSTEM, write=(str(folder / "mine"),), devices=("/dev",)))
        own = folder / "mine"
        (own / "a/b").mkdir(parents=True)
        (own / "a/one").write_text("#!/bin/sh\necho done\n")
        os.rename(own / "a/one", own / "a/b/one")
        os.link(own / "a/b/one", own / "two")
        os.symlink("two", own / "three")
        os.mkfifo(own / "fifo")
        os.truncate(own / "a/b/one", 20)
        os.chmod(own / "two", 0o700)
        return subprocess.run([own / "three"], capture_output=True, text=True, check=True).stdout

    assert forked(child) == "done\n"


def test_no_socket_or_device_can_be_made(forked, folder):
    """Even in a place that may be written, no socket and no device node comes to be."""

    def child() -> list[int]:
        restrict(Rules(SYSTEM, write=(str(folder / "mine"),)))
        with socket.socket(socket.AF_UNIX) as sock:
            made = refused(lambda: sock.bind(str(folder / "mine/sock")))
        device = refused(lambda: os.mknod(folder / "mine/null", 0o020666, os.makedev(1, 3)))
        return [made, device]

    assert all(code in (errno.EACCES, errno.EPERM) for code in forked(child))


def test_read_places_cannot_be_written(forked, folder):
    """A place given for reading stays as it is."""

    def child() -> list[int]:
        restrict(Rules((*SYSTEM, str(folder / "theirs"))))
        read = (folder / "theirs/secret").read_text()
        return [len(read), refused(lambda: open(folder / "theirs/secret", "a"))]

    assert forked(child) == [6, errno.EACCES]


def test_devices_can_be_read_and_written(forked):
    """/dev/null and its like work, so that subprocesses can be silenced."""

    def child() -> tuple[int, int]:
        restrict(Rules(SYSTEM, devices=("/dev",)))
        with open("/dev/null", "w") as null, open("/dev/urandom", "rb") as random:
            return subprocess.run(["/bin/echo", "x"], stdout=null, check=True).returncode, len(random.read(4))

    assert forked(child) == (0, 4)


def test_a_single_file_can_be_named(forked, folder):
    """A rule may name a file; its neighbours stay closed."""

    def child() -> tuple[str, int]:
        restrict(Rules(SYSTEM, write=(str(folder / "theirs/secret"),)))
        return (folder / "theirs/secret").read_text(), refused(lambda: os.listdir(folder / "theirs"))

    assert forked(child) == ("secret", errno.EACCES)


def test_a_missing_path_is_left_out(forked):
    """A path that this machine does not have is no error."""
    assert "files" in forked(lambda: restrict(Rules((*SYSTEM, "/no/such/place"))))


@pytest.mark.skipif(landlock.abi() < 4, reason="Landlock of this kernel knows no TCP")
@pytest.mark.parametrize("network", [False, True])
def test_tcp_is_closed_unless_it_is_wanted(forked, network):
    """Without `network` no port can be bound or connected to; with it Landlock leaves TCP alone."""

    def child() -> tuple[list[int], frozenset[str]]:
        parts = restrict(Rules(SYSTEM, network=network))
        with socket.socket() as one, socket.socket() as two:
            bound = refused(lambda: one.bind(("127.0.0.1", 0)))
            reached = refused(lambda: two.connect(("127.0.0.1", 1)))
        return [bound, reached], parts

    codes, parts = forked(child)
    assert codes == ([0, errno.ECONNREFUSED] if network else [errno.EACCES, errno.EACCES])
    assert ("tcp" in parts) is not network


@pytest.mark.skipif(landlock.abi() < 6, reason="Landlock of this kernel knows no scopes")
def test_signals_stay_inside(forked):
    """A process outside cannot be signalled, a child can."""
    outside = os.getpid()

    def child() -> tuple[int, int]:
        restrict(Rules(SYSTEM))
        own = subprocess.Popen(["/bin/sleep", "60"])
        own.send_signal(signal.SIGKILL)
        return refused(lambda: os.kill(outside, 0)), own.wait()

    assert forked(child) == (errno.EPERM, -signal.SIGKILL)


@pytest.mark.skipif(landlock.abi() < 6, reason="Landlock of this kernel knows no scopes")
def test_abstract_sockets_stay_inside(forked):
    """An abstract socket of a process outside cannot be connected to."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0dataproc-test-" + os.urandom(8).hex())
        server.listen()
        name = server.getsockname()

        def child() -> int:
            restrict(Rules(SYSTEM))
            with socket.socket(socket.AF_UNIX) as client:
                return refused(lambda: client.connect(name))

        assert forked(child) == errno.EPERM


def test_it_cannot_be_undone(forked, folder):
    """A second rule set that names more gives nothing back."""

    def child() -> int:
        restrict(Rules(SYSTEM))
        restrict(Rules((*SYSTEM, str(folder))))
        return refused(lambda: open(folder / "theirs/secret"))

    assert forked(child) == errno.EACCES


@pytest.mark.parametrize(
    ("version", "files", "ports", "scopes"),
    [(2, 0x3FFF, 0, 0), (3, 0x7FFF, 0, 0), (4, 0x7FFF, 3, 0), (7, 0xFFFF, 3, 3)],
)
def test_only_what_the_version_knows_is_handled(version, files, ports, scopes):
    """A bit that the kernel does not know would make it refuse the whole rule set."""
    words = memoryview(Rules(()).attributes(version)).cast("Q")
    assert list(words) == [files, ports, scopes]
