"""The thin wrappers: what they hand to the kernel, and what they raise."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from dataproc.engine import syscalls

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def test_an_error_carries_its_number_and_the_name_of_the_call():
    """A refused call is an OSError with the kernel's errno, and says which call it was."""
    with pytest.raises(OSError, match="setns") as caught:
        syscalls.setns(-1)
    assert caught.value.errno == errno.EBADF


def test_a_call_without_a_number_is_missing():
    """A name that this machine has no number for answers ENOSYS, as an old kernel would."""
    with pytest.raises(OSError, match="frobnicate") as caught:
        syscalls.call("frobnicate")
    assert caught.value.errno == errno.ENOSYS


def test_the_numbers_reach_the_kernel():
    """The table's number of a harmless call does what its name says."""
    assert syscalls.call("getpid") == os.getpid()


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_those_of_the_headers(machine):
    """Where the kernel's headers are installed, every number in the tables agrees with them."""
    if not HEADERS[machine].exists():
        pytest.skip("no kernel headers here")
    text = HEADERS[machine].read_text()
    known = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    ours = syscalls.MACHINES[machine].numbers
    assert {name: known[name] for name in ours.keys() & known.keys()} == {
        n: ours[n] for n in ours.keys() & known.keys()
    }
    assert len(ours.keys() & known.keys()) > 60


def test_no_new_privileges_shows_in_the_process(forked):
    """The flag is in force afterwards."""

    def child() -> str:
        syscalls.no_new_privileges()
        return Path("/proc/self/status").read_text()

    assert "NoNewPrivs:\t1" in forked(child)


def test_ambient_capabilities_survive_where_they_are_raised(forked):
    """In a user namespace of its own, a process can keep one capability for the program it becomes."""

    def child() -> str:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        syscalls.set_capabilities((syscalls.CAP_SYS_ADMIN,), (syscalls.CAP_SYS_ADMIN,))
        syscalls.raise_ambient((syscalls.CAP_SYS_ADMIN,))
        return Path("/proc/self/status").read_text()

    status = forked(child)
    mask = f"{1 << syscalls.CAP_SYS_ADMIN:016x}"
    assert f"CapEff:\t{mask}" in status
    assert f"CapAmb:\t{mask}" in status


def test_a_mount_is_detached_made_read_only_and_attached(forked, tmp_path):
    """open_tree, mount_setattr and move_mount put a read-only view of a folder somewhere else."""
    source, target = Path("/usr/share"), "/tmp"  # in a mount namespace of the child's own

    def child() -> tuple[bool, int | None]:
        uid = os.getuid()
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        flags = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC | syscalls.AT_RECURSIVE
        tree = syscalls.open_tree(str(source), flags)
        syscalls.mount_setattr(tree, flags=syscalls.AT_RECURSIVE, add=syscalls.MOUNT_ATTR_RDONLY)
        syscalls.move_mount(tree, target)
        same = os.stat(target).st_ino == source.stat().st_ino
        try:
            os.mkdir(f"{target}/new")
        except OSError as error:
            return same, error.errno
        return same, 0

    try:
        same, code = forked(child)
    except AssertionError as error:  # e.g. a container that forbids user namespaces
        if "unshare: Operation not permitted" in str(error):
            pytest.skip("no user namespaces here")
        raise
    assert (same, code) == (True, errno.EROFS)
