"""No path and no link leads out of a session directory, whichever way the kernel is asked."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dataproc.errors import DataprocError, InvalidParams
from dataproc.storage import paths
from dataproc.storage.paths import has_openat2, kernel_open, make_parents, open_regular, walking_open

Opener = Callable[[int, Sequence[str], int], int]
LEAVES = f"{os.strerror(errno.EXDEV)}|{os.strerror(errno.ELOOP)}"
SECRET = b"secret of another session"


@pytest.fixture(params=["openat2", "walk"])
def opener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Both ways to resolve, the one that is not the kernel's own forced on the functions above it."""
    if request.param == "openat2" and not has_openat2():
        pytest.skip("this kernel has no openat2")
    chosen = kernel_open if request.param == "openat2" else walking_open
    monkeypatch.setattr(paths, "open_beneath", chosen)
    return chosen


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A session directory with a neighbour."""
    (tmp_path / "files" / "d").mkdir(parents=True)
    (tmp_path / "files" / "d" / "inside").write_bytes(b"inside")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret").write_bytes(SECRET)
    return tmp_path


@pytest.fixture
def root(place: Path) -> Iterator[int]:
    """Its files, opened."""
    fd = os.open(place / "files", os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def content(opener: Opener, root: int, path: str) -> bytes:
    fd = opener(root, path.split("/"), os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "target", ["inside", "./inside", "../d/inside", "../d/../d//inside", "../link/inside", "hop/../inside"]
)
def test_links_inside_are_followed(opener: Opener, place: Path, root: int, target: str) -> None:
    """A link that stays inside leads to its file, by `..` and other links too."""
    (place / "files" / "link").symlink_to("d")
    (place / "files" / "d" / "hop").symlink_to("../d/sub")
    (place / "files" / "d" / "sub").mkdir()
    (place / "files" / "d" / "there").symlink_to(target)
    assert content(opener, root, "d/there") == content(opener, root, "link/there") == b"inside"


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "../../other/secret",
        "../..",
        "..//..//other/secret",
        "up/../../other/secret",
        "/proc/self/root/etc/passwd",
        "{place}/files/d/inside",
    ],
)
def test_links_that_leave_are_refused(opener: Opener, place: Path, root: int, target: str) -> None:
    """A link that leaves fails as such, also one by an absolute path that would come back."""
    (place / "files" / "d" / "up").symlink_to("..")
    (place / "files" / "d" / "out").symlink_to(target.format(place=place))
    with pytest.raises(OSError, match=LEAVES) as refused:
        content(opener, root, "d/out")
    assert isinstance(paths.told(refused.value), InvalidParams)


def test_nothing_is_told_of_what_a_link_hides(opener: Opener, place: Path, root: int) -> None:
    """A link to what is there outside, and one to what is not, fail alike."""
    (place / "files" / "there").symlink_to("../other/secret")
    (place / "files" / "none").symlink_to("../other/none")
    (place / "files" / "through").symlink_to("../other/none/deeper")
    told = set()
    for name in ("there", "none", "through"):
        with pytest.raises(OSError, match=LEAVES) as refused:
            content(opener, root, name)
        told.add(paths.told(refused.value).message)
    assert len(told) == 1


def test_dots_do_not_lead_out(opener: Opener, root: int) -> None:
    """Even names that the reader of paths would have refused are held by the resolution."""
    for names in (["..", "other", "secret"], ["d", "..", "..", "other", "secret"]):
        with pytest.raises(OSError, match=LEAVES):
            opener(root, names, os.O_RDONLY)


def test_loops_and_chains_end(opener: Opener, place: Path, root: int) -> None:
    """A link to itself, a ring, and a chain that doubles its length at each link all end in a refusal."""
    files = place / "files"
    (files / "self").symlink_to("self")
    (files / "a").symlink_to("b")
    (files / "b").symlink_to("a")
    for level in range(60):
        (files / f"l{level}").symlink_to(f"l{level + 1}/../l{level + 1}")
    for name in ("self", "a", "l0"):
        with pytest.raises(OSError, match=LEAVES) as refused:
            content(opener, root, name)
        assert isinstance(paths.told(refused.value), DataprocError)


@pytest.mark.timeout(10)
def test_only_regular_files_are_read(opener: Opener, place: Path, root: int) -> None:
    """A FIFO without a writer, a socket, and a link to them are refused at once, not waited for."""
    files = place / "files"
    os.mkfifo(files / "fifo")
    (files / "link").symlink_to("fifo")
    here = os.open(files, os.O_RDONLY)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(f"/proc/self/fd/{here}/socket")
        for name in ("fifo", "link", "socket"):
            with pytest.raises((OSError, InvalidParams)) as refused:
                open_regular(root, [name])
            error = paths.told(refused.value) if isinstance(refused.value, OSError) else refused.value
            assert isinstance(error, DataprocError)
            assert "regular file" in error.message
    os.close(here)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_devices_are_refused(opener: Opener, place: Path, root: int) -> None:
    """A device that got into the directory is not read."""
    os.mknod(place / "files" / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    with pytest.raises((OSError, InvalidParams)):
        open_regular(root, ["zero"])


def test_a_hard_link_to_what_is_not_the_workers_is_refused(opener: Opener, place: Path, root: int) -> None:
    """A second name of a file that the workers' uid does not own is not read; a second name of its own file is."""
    os.link(place / "other" / "secret", place / "files" / "hard")
    with pytest.raises(InvalidParams):
        open_regular(root, ["hard"], os.geteuid() + 1)
    os.close(open_regular(root, ["hard"], os.geteuid()))


SWAP = """
import contextlib, os, sys
os.chdir(sys.argv[1])
while True:
    for stored in ("real", "evil"):
        with contextlib.suppress(OSError):  # the attacked one made a folder in the gap
            os.rename(stored, "d")
            os.rename("d", stored)
"""


@pytest.fixture
def swapped(place: Path) -> Iterator[None]:
    """`d` is now a folder, now a link that leads out, now nothing, as another process swaps them as fast as it goes."""
    files = place / "files"
    (files / "d").rename(files / "real")
    (files / "real" / "secret").write_bytes(b"inside")
    (files / "evil").symlink_to("../other")
    with subprocess.Popen([sys.executable, "-c", SWAP, files]) as process:
        yield
        process.kill()


@pytest.mark.usefixtures("swapped")
def test_a_folder_swapped_for_a_link_is_never_read_through(opener: Opener, root: int) -> None:
    """Whatever the moment, a read gets what is inside or an error; both were met."""
    seen: set[bytes] = set()
    tries, deadline = 0, time.monotonic() + 30
    while tries < 3000 or (not {b"inside", b"InvalidParams"} <= seen and time.monotonic() < deadline):
        tries += 1
        try:
            seen.add(content(opener, root, "d/secret"))
        except OSError as error:
            seen.add(type(paths.told(error)).__name__.encode())
    assert SECRET not in seen
    assert {b"inside", b"InvalidParams"} <= seen


@pytest.mark.usefixtures("swapped")
def test_a_folder_swapped_for_a_link_is_never_written_through(opener: Opener, place: Path, root: int) -> None:
    """Whatever the moment, folders are made inside, or not at all."""
    for each in range(1500):
        with contextlib.suppress(OSError):
            parent = make_parents(root, ["d", f"made{each}"])
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600, dir_fd=parent))
            os.close(parent)
    assert sorted(os.listdir(place / "other")) == ["secret"]


def test_no_descriptor_is_left_open(opener: Opener, place: Path, root: int) -> None:
    """Neither success nor any refusal leaks a descriptor."""
    (place / "files" / "out").symlink_to("/etc/passwd")
    (place / "files" / "in").symlink_to("d/../d/inside")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("d/inside", "in", "out", "none/x", "d/inside/x", "d"):
        for _ in range(20):
            with contextlib.suppress(OSError, InvalidParams):
                os.close(open_regular(root, path.split("/")))
            with contextlib.suppress(OSError):
                os.close(make_parents(root, ["p", *path.split("/")]))
    assert len(os.listdir("/proc/self/fd")) == before
