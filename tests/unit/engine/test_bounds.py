"""Bounds: what a process can no longer use up or gain, and how the memory of a tree is counted."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataproc.engine import bounds, syscalls
from dataproc.engine.bounds import Limits

MiB = 2**20
LIMITS = Limits(memory=256 * MiB, processes=20, open_files=64, file_size=MiB)


def own_namespace() -> None:
    """What a worker does first: a user namespace of its own, mapped to the same uid."""
    uid = os.getuid()
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1")):
        Path(f"/proc/self/{name}").write_text(text)


def refused(action: Callable[[], object]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


def test_a_file_cannot_grow_beyond_the_limit(forked, tmp_path):
    """The write at the limit fails with EFBIG, and does not kill."""
    with open(tmp_path / "file", "wb", buffering=0) as file:

        def child() -> tuple[int, int]:
            bounds.apply(LIMITS)
            file.write(bytes(MiB))
            return refused(lambda: file.write(b"x")), refused(lambda: file.truncate(2 * MiB))

        assert forked(child) == (errno.EFBIG, errno.EFBIG)
    assert (tmp_path / "file").stat().st_size == MiB


def test_open_files_are_counted(forked):
    """Beyond the limit no descriptor is given."""

    def child() -> tuple[int, int]:
        bounds.apply(LIMITS)
        opened = []
        try:
            while True:
                opened.append(os.dup(0))
        except OSError as error:
            return max(opened) + 1, error.errno or 0

    assert forked(child) == (LIMITS.open_files, errno.EMFILE)


def test_one_process_cannot_map_without_end(forked):
    """A process that takes memory faster than anybody looks is stopped by its own limit."""

    def child() -> int:
        bounds.apply(LIMITS)
        return refused(lambda: mmap.mmap(-1, 3 * LIMITS.memory, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    assert forked(child) == errno.ENOMEM


@pytest.mark.parametrize("kind", [resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE])
def test_a_limit_is_for_good(forked, kind):
    """Without privilege neither the soft nor the hard limit can be raised again."""

    def child() -> bool:
        own_namespace()
        bounds.apply_fixed()
        bounds.apply(LIMITS)
        bounds.keep_capabilities()
        bounds.drop_capabilities()
        before = resource.getrlimit(kind)
        try:
            resource.setrlimit(kind, (before[1] + 1, before[1] + 1))
        except (ValueError, OSError):
            return resource.getrlimit(kind) == before
        return False

    assert forked(child)


def test_a_limit_above_the_present_one_changes_nothing(forked):
    """A machine that grants less than asked for is no error."""

    def child() -> tuple[int, int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        bounds.apply(LIMITS)
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    assert forked(child) == (32, 32)


@pytest.mark.parametrize("own", [False, True])
def test_timers_are_shared_out_only_where_they_are_counted_for_the_worker_alone(forked, own):
    """Without a user namespace of its own all workers' timers count together: a low bound would be one for all."""
    before = resource.getrlimit(resource.RLIMIT_SIGPENDING)

    def child() -> tuple[int, int]:
        if own:
            own_namespace()
            bounds.share_out()
        bounds.apply_fixed()
        bounds.apply(LIMITS)
        return resource.getrlimit(resource.RLIMIT_SIGPENDING)

    assert forked(child) == ((bounds.SIGNALS, bounds.SIGNALS) if own else before)


def test_processes_are_counted_for_the_worker_alone(forked):
    """In its own user namespace a plain user's tree has `processes` processes, whatever the user runs elsewhere."""

    def child() -> tuple[int, int]:
        if os.getuid() == 0:
            os.setresuid(64998, 64998, 64998)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
        own_namespace()
        bounds.apply(LIMITS)
        bounds.keep_capabilities()
        bounds.drop_capabilities()
        release, hold = os.pipe()
        children = 0
        while True:
            try:
                pid = os.fork()
            except OSError as error:
                os.close(hold)
                return children, error.errno or 0
            if pid == 0:
                os.close(hold)
                os.read(release, 1)
                os._exit(0)
            children += 1

    assert forked(child) == (LIMITS.processes - 1, errno.EAGAIN)


def test_a_worker_without_a_session_can_attach_mounts_and_nothing_else(forked):
    """One capability is kept until the session has come, and no exec gives it on."""

    def child() -> dict[str, str]:
        own_namespace()
        bounds.keep_capabilities(syscalls.CAP_SYS_ADMIN)
        status = Path("/proc/self/status").read_text()
        return dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))

    none, admin = "0" * 16, f"{1 << syscalls.CAP_SYS_ADMIN:016x}"
    assert forked(child) == {"CapInh": none, "CapPrm": admin, "CapEff": admin, "CapBnd": none, "CapAmb": none}


def test_no_capability_is_left_and_none_comes_back(forked):
    """Every set is empty, and exec gives nothing, also to a program run as root of its namespace."""

    def child() -> str:
        own_namespace()
        bounds.keep_capabilities()
        bounds.drop_capabilities()
        return subprocess.run(["/bin/cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout

    status = forked(child)
    sets = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
    assert set(sets) == {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
    assert set(sets.values()) == {"0" * 16}


def test_the_machine_ends_workers_first(forked):
    """When memory runs out the kernel's choice is the worker."""

    def child() -> str:
        bounds.die_first()
        return Path("/proc/self/oom_score_adj").read_text()

    assert forked(child) == "1000\n"


@contextmanager
def family(count: int, work: Callable[[], object]) -> Iterator[list[int]]:
    """A process that has done `work` and has `count` forks of itself; the pids of all."""
    told, tell = os.pipe()
    release, hold = os.pipe()
    first = os.fork()
    if first == 0:
        kept = work()
        for _ in range(count):
            if os.fork() == 0:
                break
        os.write(tell, os.getpid().to_bytes(4, "little"))
        os.close(hold)
        os.read(release, 1)
        os._exit(0 if kept is not None else 1)
    try:
        yield [int.from_bytes(os.read(told, 4), "little") for _ in range(count + 1)]
    finally:
        for descriptor in (hold, release, told, tell):
            os.close(descriptor)
        os.waitpid(first, 0)


def filled(size: int) -> bytearray:
    return bytearray(b"x") * size


def test_shared_pages_are_counted_once():
    """Another 64 MiB in a process with three forks are 64 MiB more, not 256, once the cheap sum is above the limit."""
    with family(3, lambda: filled(64 * MiB)) as pids, family(3, lambda: 0) as without:
        cheap, exact = ([bounds.tree_memory(each, limit=limit) for each in (pids, without)] for limit in (2**40, 1))
        assert cheap[0] - cheap[1] > 250 * MiB
        assert 50 * MiB < exact[0] - exact[1] < 100 * MiB


def test_memory_shared_by_design_is_counted():
    """An anonymous shared mapping is the tree's memory too."""

    def work() -> mmap.mmap:
        shared = mmap.mmap(-1, 32 * MiB)
        shared.write(bytes(32 * MiB))
        return shared

    with family(1, work) as pids:
        assert bounds.tree_memory(pids) > 32 * MiB


def test_page_tables_are_counted():
    """Touching one page in every stretch costs the kernel a table each; that is the tree's memory as well."""

    def work() -> mmap.mmap:
        sparse = mmap.mmap(-1, 2**34, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, mmap.PROT_READ)
        for at in range(0, 2**34, 2 * MiB):
            sparse[at]
        return sparse

    with family(0, work) as (small,), family(0, lambda: 0) as (none,):
        assert bounds.tree_memory([small]) - bounds.tree_memory([none]) > 16 * MiB


def test_memory_files_are_found():
    """What lies in a memory file that nobody has mapped is in no process's account, and counted here, once."""

    def work() -> int:
        descriptor = os.memfd_create("hidden")
        os.write(descriptor, bytes(16 * MiB))
        return descriptor

    with family(2, work) as pids:
        assert bounds.unmapped_memory(pids) == 16 * MiB


def test_processes_that_have_gone_hold_nothing():
    """A pid that ended between the listing and the look is no error."""
    with family(0, lambda: 0) as pids:
        pass
    assert bounds.tree_memory(pids) == bounds.unmapped_memory(pids) == 0
