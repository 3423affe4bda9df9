"""The third layer: two filters of system calls, as classic BPF that the kernel runs before each call.

A filter sees the call's number and its register arguments, not what pointers point to. So `clone3`, whose flags lie in
memory, answers ENOSYS (the C library then uses `clone`), and what `sendmsg` carries cannot be judged here.

The worker's holds only what it adds: it is put on top of the zygote's, which stays in force. A long filter takes the
kernel longer to take in, and that is done for each worker.

A list of what is refused, over a floor of what is known: a number above the newest call that was looked at answers
ENOSYS, which also refuses the x32 numbers of x86_64.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from dataproc.engine import syscalls
from dataproc.engine.syscalls import MACHINES, Machine

Profile = Literal["zygote", "worker"]

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
ERRNO: Final = 0x00050000

NEWEST: Final = 469  # file_setattr, Linux 6.17: every call up to it was looked at for this list

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # of 32 bits: at a fixed offset; with a constant; a constant
_IF_EQUAL, _IF_GREATER, _IF_ANY_BIT = 0x15, 0x25, 0x45
_NUMBER, _AUDIT, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: `yes` and `no` are how many instructions a comparison skips."""

    code: int
    value: int
    yes: int = 0
    no: int = 0

    def packed(self) -> bytes:
        """As the kernel's `struct sock_filter`."""
        return (
            self.code.to_bytes(2, "little")
            + bytes((self.yes, self.no))
            + (self.value & 0xFFFFFFFF).to_bytes(4, "little")
        )


Steps = tuple[Step, ...]  # always ends in a return, so that whatever it loaded is nobody else's worry


def verdict(value: int) -> Steps:
    """End with `ALLOW`, `KILL`, or `ERRNO | number`."""
    return (Step(_RETURN, value),)


def refuse(number: int) -> Steps:
    """End with an error for the caller."""
    return verdict(ERRNO | number)


def where(condition: int, value: int, then: Steps, otherwise: Steps) -> Steps:
    """Go on with `then` if the accumulator meets the condition, else with `otherwise`."""
    return (Step(condition, value, no=len(then)), *then, *otherwise)


def argument(index: int, then: Steps, mask: int = 0xFFFFFFFF) -> Steps:
    """Load the low half of an argument, all that the kernel looks at where the C type is an int."""
    masked = () if mask == 0xFFFFFFFF else (Step(_AND, mask),)
    return (Step(_LOAD, _ARGUMENTS + 8 * index), *masked, *then)


def one_of(values: tuple[int, ...], then: Steps, otherwise: Steps) -> Steps:
    """Go on with `then` if the accumulator is one of the values."""
    for value in values:
        otherwise = where(_IF_EQUAL, value, then, otherwise)
    return otherwise


NO: Final = refuse(errno.EPERM)
NO_SOCKET: Final = refuse(errno.EACCES)
MISSING: Final = refuse(errno.ENOSYS)
YES: Final = verdict(ALLOW)

_NAMESPACES: Final = (
    syscalls.CLONE_NEWNS | syscalls.CLONE_NEWCGROUP | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET
)  # fmt: skip
_TIOCSTI, _TIOCSETD, _TIOCLINUX = 0x5412, 0x5423, 0x541C  # put words in a terminal's mouth; load a line discipline
_SOCKET_KIND: Final = 0xF  # the rest of a socket's type is SOCK_CLOEXEC and SOCK_NONBLOCK

# Other processes, the kernel's own doors, the machine's state: nobody below the keeper needs these.
_NEVER: Final = (
    "io_uring_setup", "io_uring_enter", "io_uring_register",  # does the work of other calls, unseen by any filter
    "add_key", "request_key", "keyctl", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp",
    "pidfd_getfd", "bpf", "userfaultfd", "perf_event_open", "kexec_load", "kexec_file_load", "init_module",
    "finit_module", "delete_module", "reboot", "swapon", "swapoff", "quotactl", "quotactl_fd", "acct", "settimeofday",
    "clock_settime", "clock_adjtime", "adjtimex", "name_to_handle_at", "open_by_handle_at", "fanotify_init",
    "fanotify_mark", "lookup_dcookie", "iopl", "ioperm", "modify_ldt", "vhangup", "syslog", "nfsservctl", "uselib",
    "lsm_set_self_attr",
    "shmget", "msgget", "semget", "memfd_secret",  # memory that no process's account shows
)  # fmt: skip

# What makes a worker's surroundings; the zygote still has to. Not `move_mount`: the filter is put in force before the
# session's folders come. That call takes a capability, which is given up then, and Landlock refuses it besides.
_SURROUNDINGS: Final = (
    "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree", "open_tree_attr", "mount_setattr",
    "fsopen", "fsconfig", "fsmount", "fspick", "sethostname", "setdomainname",
)  # fmt: skip

_CONNECTING: Final = ("connect", "bind", "listen", "accept", "accept4")


def filter_bytes(profile: Profile, network: bool = False, machine: str | None = None) -> bytes:
    """The filter, packed for `install`; `machine` is a name of `MACHINES`, this one by default."""
    target = syscalls.machine() if machine is None else MACHINES[machine]
    return _packed(profile, network, target.audit)


@cache
def _packed(profile: Profile, network: bool, audit: int) -> bytes:
    (machine,) = (one for one in MACHINES.values() if one.audit == audit)
    return b"".join(step.packed() for step in assemble(judgements(profile, network), machine))


def install(program: bytes) -> None:
    """Put the filter in force, for good, for this thread and all it starts; needs `no_new_privileges`."""
    syscalls.seccomp_filter(program)


def available() -> bool:
    """Whether there is a table of system calls for this machine."""
    return os.uname().machine in MACHINES


def judgements(profile: Profile, network: bool) -> Mapping[str, Steps]:
    """What happens to each call that is not simply allowed, by the call's name. A worker is under both profiles."""
    if profile == "worker":
        judged = dict.fromkeys(_SURROUNDINGS, NO)
        judged["clone"] = argument(0, where(_IF_ANY_BIT, _NAMESPACES | syscalls.CLONE_PARENT, NO, YES))
        judged["prctl"] = argument(0, one_of((syscalls.PR_SET_CHILD_SUBREAPER,), NO, YES))
        return judged
    judged = dict.fromkeys(_NEVER, NO)
    judged["clone3"] = MISSING
    judged["ioctl"] = argument(1, one_of((_TIOCSTI, _TIOCSETD, _TIOCLINUX), NO, YES))
    judged["personality"] = argument(0, one_of((0, 0xFFFFFFFF), YES, NO))  # ask, or the plain one
    judged["socketpair"] = _stream_pair()
    judged["socket"] = _internet_socket() if network else NO_SOCKET
    return judged if network else judged | dict.fromkeys(_CONNECTING, NO_SOCKET)


def assemble(judged: Mapping[str, Steps], machine: Machine) -> Steps:
    """The whole filter for one instruction set; a name that the set does not have is left out."""
    known = {name for one in MACHINES.values() for name in one.numbers}
    if unknown := judged.keys() - known:
        raise KeyError(f"no number for {', '.join(sorted(unknown))}")
    body = YES
    for name, steps in judged.items():
        if name in machine.numbers:
            body = where(_IF_EQUAL, machine.numbers[name], steps, body)
    body = where(_IF_GREATER, NEWEST, MISSING, body)
    return (
        Step(_LOAD, _AUDIT),
        Step(_IF_EQUAL, machine.audit, yes=1),
        *verdict(KILL),
        Step(_LOAD, _NUMBER),
        *body,
    )


def _stream_pair() -> Steps:
    # a datagram pair can be pointed at any socket's path, past Landlock and the mount tree's read-only flags
    stream = one_of((socket.SOCK_STREAM,), YES, NO_SOCKET)
    return argument(0, one_of((socket.AF_UNIX,), argument(1, stream, _SOCKET_KIND), NO_SOCKET))


def _internet_socket() -> Steps:
    # TCP and UDP; not the other protocols of the same families, of which each is a door of its own in the kernel
    protocol = argument(2, one_of((0, socket.IPPROTO_TCP, socket.IPPROTO_UDP), YES, NO_SOCKET))
    kind = argument(1, one_of((socket.SOCK_STREAM, socket.SOCK_DGRAM), protocol, NO_SOCKET), _SOCKET_KIND)
    return argument(0, one_of((socket.AF_INET, socket.AF_INET6), kind, NO_SOCKET))
