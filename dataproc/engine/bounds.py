"""What a worker may use up, and what it may never gain: resource limits, capabilities, and the memory of a tree.

Standard library only: the first half runs in the worker, the second in whoever watches it. Facts: getrlimit(2),
capabilities(7), proc_pid_status(5), proc_pid_smaps(5).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dataproc.engine import syscalls

FIXED = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_MEMLOCK: 2**23,
    resource.RLIMIT_RTPRIO: 0,
    resource.RLIMIT_NICE: 0,
}
SIGNALS = 1024  # timers and queued signals
WATCHES = {"max_inotify_instances": 2, "max_inotify_watches": 2048}  # of 128 and some 100,000 that a user has


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a worker: bytes of memory and processes of its whole tree, open files of a process, bytes of a file."""

    memory: int
    processes: int
    open_files: int
    file_size: int


def apply(limits: Limits) -> None:
    """Lower the limits of this process and of all it starts, soft and hard, never above what it already has.

    To be called inside the worker's own user namespace: there RLIMIT_NPROC counts this worker's processes alone, and
    a limit lowered before the namespace was made would bound all workers of the zygote together. The kernel never
    counts processes of uid 0 of the machine. RLIMIT_DATA is a brake on one process that grows faster than the
    watcher looks: twice the bound, since what is mapped is more than what is used. RLIMIT_AS stays free, because
    runtimes map far more than they touch.
    """
    wanted = {
        resource.RLIMIT_NPROC: limits.processes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.file_size,
        resource.RLIMIT_DATA: 2 * limits.memory,
    }
    _lower(wanted)


def apply_fixed() -> None:
    """Lower those that are the same for every worker, there too."""
    _lower(FIXED)


def _lower(wanted: Mapping[int, int]) -> None:
    for kind, value in wanted.items():
        _, most = resource.getrlimit(kind)
        bound = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (bound, bound))


def share_out() -> None:
    """Leave most of the kernel's timers and watches of files to others: they are counted by user, and all workers are
    one.

    To be called in the worker's own user namespace, before its capabilities go: outside of it a lower bound would be
    one for all workers together. Where the kernel has no such bound, nothing is lost but this.
    """
    _lower({resource.RLIMIT_SIGPENDING: SIGNALS})
    for name, most in WATCHES.items():
        with contextlib.suppress(OSError):
            syscalls.tell(f"/proc/sys/user/{name}", str(most))


def die_first() -> None:
    """Let the kernel choose this process and its children when the machine itself runs out of memory."""
    syscalls.tell("/proc/self/oom_score_adj", "1000")


def keep_capabilities(*kept: int) -> None:
    """Give up all but these, and every way to one at a later exec. Needs CAP_SETPCAP, as in a new user namespace."""
    with contextlib.suppress(OSError):  # EINVAL: one more than the kernel knows
        for number in itertools.count():
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    if syscalls.prctl(syscalls.PR_CAPBSET_READ, 0):
        raise PermissionError("the capability bounding set could not be emptied")
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    syscalls.prctl(syscalls.PR_SET_SECUREBITS, syscalls.SECUREBITS_LOCKED)
    syscalls.set_capabilities(kept)


def drop_capabilities() -> None:
    """Give up those that were kept."""
    syscalls.set_capabilities()


# Memory that only this process can account for. Not RssFile: the kernel takes pages of files back when it needs them.
_HELD = re.compile(rb"^(?:RssAnon|RssShmem|VmPTE|VmSwap):\s+(\d+) kB$", re.MULTILINE)
_SHARE = re.compile(rb"^(?:Pss_Anon|Pss_Shmem|SwapPss):\s+(\d+) kB$", re.MULTILINE)
_MACHINE = re.compile(rb"^Shmem:\s+(\d+) kB$", re.MULTILINE)
LOOKED_AT = 20_000
_TABLES = re.compile(rb"^VmPTE:\s+(\d+) kB$", re.MULTILINE)


def tree_memory(pids: Iterable[int], limit: int = 0) -> int:
    """Bytes that these processes hold: no less than the truth, and the truth where that is more than `limit`.

    First the sum of what each says for itself (20 to 70 microseconds a process), in which pages that are shared since
    a fork count in each. Only where that is above `limit` is each page shared out among its users, which walks the
    page tables: about a millisecond a process of 300 MiB. Processes that have gone count nothing.
    """
    known = tuple(pids)
    most = sum(_kilobytes(pid, "status", _HELD) for pid in known) * 1024
    if most <= limit:
        return most
    return sum(_shared_out(pid) for pid in known) * 1024


def unmapped_memory(pids: Iterable[int]) -> int:
    """Bytes of the files in memory (`memfd_create`) that these processes hold open, each counted once.

    No process's own account shows them until they are mapped. Each descriptor costs 2 microseconds, so a look ends at
    `LOOKED_AT` of them, and begins with another process each time: what is hidden among many is found later.
    """
    found = {}
    left = LOOKED_AT
    order = list(pids)
    random.shuffle(order)
    for pid in order:
        folder = f"/proc/{pid}/fd"
        try:
            for name in os.listdir(folder)[:left]:
                left -= 1
                if os.readlink(f"{folder}/{name}").startswith("/memfd:"):
                    file = os.stat(f"{folder}/{name}")
                    found[file.st_ino] = file.st_blocks * 512
        except OSError:
            continue  # gone, or its descriptors are
    return sum(found.values())


def machine_shared_memory() -> int:
    """Bytes of all files in memory and shared mappings of the machine."""
    with open("/proc/meminfo", "rb", buffering=0) as file:
        shared = _MACHINE.search(file.read())
    return int(shared[1]) * 1024 if shared else 0


def _kilobytes(pid: int, name: str, wanted: re.Pattern[bytes]) -> int:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return sum(map(int, wanted.findall(file.read())))
    except OSError:
        return 0


def _shared_out(pid: int) -> int:
    # a process may hide its page tables (PR_SET_DUMPABLE); then it is taken at its word, which is never too little
    share = _kilobytes(pid, "smaps_rollup", _SHARE)
    return share + _kilobytes(pid, "status", _TABLES) if share else _kilobytes(pid, "status", _HELD)
