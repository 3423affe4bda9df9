"""The kernel's calls that Python has no function for: thin, typed, raising `OSError` with its errno.

Numbers and flags are those of the kernel's own headers (`include/uapi`). From 424 on a number is the same on every
machine. Nothing here decides anything; see the man page (section 2) of each name.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Machine:
    """An instruction set: its audit value (what a seccomp filter sees) and the numbers of the calls named here."""

    audit: int
    numbers: Mapping[str, int]


_COMMON: Final = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_open": 434, "clone3": 435,
    "close_range": 436, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443,
    "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446, "memfd_secret": 447,
    "lsm_set_self_attr": 460, "open_tree_attr": 467,
}  # fmt: skip

MACHINES: Final[Mapping[str, Machine]] = {
    "x86_64": Machine(0xC000003E, _COMMON | {
        "accept": 43, "accept4": 288, "acct": 163, "add_key": 248, "adjtimex": 159, "bind": 49, "bpf": 321,
        "capset": 126, "chroot": 161, "clock_adjtime": 305, "clock_settime": 227, "clone": 56, "connect": 42,
        "delete_module": 176, "fanotify_init": 300, "fanotify_mark": 301, "finit_module": 313, "getpid": 39,
        "init_module": 175, "ioctl": 16, "ioperm": 173, "iopl": 172, "kcmp": 312, "kexec_file_load": 320,
        "kexec_load": 246, "keyctl": 250, "listen": 50, "lookup_dcookie": 212, "modify_ldt": 154, "memfd_create": 319,
        "mount": 165, "msgget": 68, "name_to_handle_at": 303, "nfsservctl": 180, "open_by_handle_at": 304,
        "perf_event_open": 298, "personality": 135, "pivot_root": 155, "prctl": 157, "process_vm_readv": 310,
        "process_vm_writev": 311, "ptrace": 101, "quotactl": 179, "reboot": 169, "request_key": 249, "seccomp": 317,
        "semget": 64, "setdomainname": 171, "sethostname": 170, "setns": 308, "settimeofday": 164, "shmget": 29,
        "socket": 41, "socketpair": 53, "swapoff": 168, "swapon": 167, "syslog": 103, "umount2": 166, "unshare": 272,
        "uselib": 134, "userfaultfd": 323, "vhangup": 153,
    }),
    "aarch64": Machine(0xC00000B7, _COMMON | {
        "accept": 202, "accept4": 242, "acct": 89, "add_key": 217, "adjtimex": 171, "bind": 200, "bpf": 280,
        "capset": 91, "chroot": 51, "clock_adjtime": 266, "clock_settime": 112, "clone": 220, "connect": 203,
        "delete_module": 106, "fanotify_init": 262, "fanotify_mark": 263, "finit_module": 273, "getpid": 172,
        "init_module": 105, "ioctl": 29, "kcmp": 272, "kexec_file_load": 294, "kexec_load": 104, "keyctl": 219,
        "listen": 201, "lookup_dcookie": 18, "memfd_create": 279, "mount": 40, "msgget": 186, "name_to_handle_at": 264,
        "nfsservctl": 42, "open_by_handle_at": 265, "perf_event_open": 241, "personality": 92, "pivot_root": 41,
        "prctl": 167, "process_vm_readv": 270, "process_vm_writev": 271, "ptrace": 117, "quotactl": 60, "reboot": 142,
        "request_key": 218, "seccomp": 277, "semget": 190, "setdomainname": 162, "sethostname": 161, "setns": 268,
        "settimeofday": 170, "shmget": 194, "socket": 198, "socketpair": 199, "swapoff": 225, "swapon": 224,
        "syslog": 116, "umount2": 39, "unshare": 97, "userfaultfd": 282, "vhangup": 58,
    }),
}  # fmt: skip

CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000
CLONE_PARENT = 0x8000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, MS_SLAVE = 0x1000, 0x2000, 0x4000, 0x40000, 0x80000
MNT_DETACH = 2
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME = 1, 4, 15
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 23, 24, 28
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_SYS_CHROOT, CAP_SYS_ADMIN = 6, 7, 8, 18, 21
# root gets nothing at exec, a change of uid keeps nothing, nothing is ambient: each bit with its lock beside it
SECUREBITS_LOCKED = 0b11_10_11_11

SECCOMP_SET_MODE_FILTER = 1
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH, LANDLOCK_RULE_NET_PORT = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)  # forty calls a worker: the C library's own is quicker
_ZEROS: Final = (0, 0, 0, 0)


def machine() -> Machine:
    """What this process runs on; `OSError(ENOSYS)` where its numbers are not known."""
    found = MACHINES.get(os.uname().machine)
    if found is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise OSError(38, f"no table of system calls for {os.uname().machine}")
    return found


_NUMBERS: Final = machine().numbers if os.uname().machine in MACHINES else {}


def call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """The call `name`. Integers go as 64 bit, bytes as a string that ends in NUL, an array by its address."""
    if name not in _NUMBERS:
        raise OSError(38, f"{name}: {os.strerror(38)}")
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = int(_libc.syscall(ctypes.c_long(_NUMBERS[name]), *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def tell(path: str, text: str) -> None:
    """Write to a file of the kernel, in one write. A file object would cost each fork ten times as much."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def unshare(flags: int) -> None:
    """New namespaces for this process (`CLONE_NEW…`)."""
    call("unshare", flags)


def setns(descriptor: int, flags: int = 0) -> None:
    """Enter the namespaces behind a descriptor (of `/proc/<pid>/ns/…`, or a pidfd)."""
    call("setns", descriptor, flags)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    call("mount", os.fsencode(source), os.fsencode(target), kind.encode(), flags, data.encode() if data else None)


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2), lazily unless told otherwise."""
    call("umount2", os.fsencode(target), flags)


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root and put the old root at `old`; `(".", ".")` stacks it for an `umount(".")`."""
    call("pivot_root", os.fsencode(new), os.fsencode(old))


def open_tree(path: str, flags: int = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC, at: int = AT_FDCWD) -> int:
    """A descriptor of a detached copy of the mount at `path` (`AT_RECURSIVE` for all below it too)."""
    return call("open_tree", at, os.fsencode(path), flags)


def move_mount(tree: int, target: str) -> None:
    """Attach the detached mount `tree` at `target`."""
    call("move_mount", tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)


def mount_setattr(tree: int, path: str = "", *, flags: int = 0, add: int = 0, remove: int = 0) -> None:
    """Change the `MOUNT_ATTR_…` of a mount: of `tree` itself where `path` is empty."""
    attributes = ctypes.create_string_buffer(b"".join(word.to_bytes(8, "little") for word in (add, remove, 0, 0)), 32)
    call("mount_setattr", tree, os.fsencode(path), flags | (0 if path else AT_EMPTY_PATH), attributes, 32)


def prctl(option: int, *arguments: int) -> int:
    """prctl(2); arguments that are not given are 0, as the stricter options demand."""
    result = int(_libc.prctl(option, *arguments, *_ZEROS[len(arguments) :]))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl: {os.strerror(code)}")
    return result


def no_new_privileges() -> None:
    """From here on no exec gains anything; Landlock and seccomp ask for it."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def set_capabilities(permitted: Iterable[int] = (), inheritable: Iterable[int] = ()) -> None:
    """Keep these capabilities alone, in effect at once; none by default."""
    may = sum(1 << number for number in permitted)
    hand_on = sum(1 << number for number in inheritable)
    low, high = ([mask >> shift & 0xFFFFFFFF for mask in (may, may, hand_on)] for shift in (0, 32))
    header = ctypes.create_string_buffer(0x20080522.to_bytes(4, "little") + bytes(4), 8)
    sets = ctypes.create_string_buffer(b"".join(word.to_bytes(4, "little") for word in low + high), 24)
    call("capset", header, sets)


def raise_ambient(capabilities: Iterable[int]) -> None:
    """Let these (which must be permitted and inheritable) survive the exec of an ordinary program."""
    for number in capabilities:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def close_range(first: int, last: int = 2**32 - 1, flags: int = 0) -> None:
    """Close every descriptor from `first` to `last`, both included."""
    call("close_range", first, last, flags)


def landlock_abi() -> int:
    """The version of Landlock that the kernel speaks; `OSError` where it has none or it is switched off."""
    return call("landlock_create_ruleset", None, 0, LANDLOCK_CREATE_RULESET_VERSION)


def landlock_create_ruleset(attributes: bytes) -> int:
    """A descriptor of a rule set that handles what `attributes` (`struct landlock_ruleset_attr`) says."""
    return call("landlock_create_ruleset", ctypes.create_string_buffer(attributes, len(attributes)), len(attributes), 0)


def landlock_add_rule(ruleset: int, kind: int, rule: bytes) -> None:
    """Add one packed rule."""
    call("landlock_add_rule", ruleset, kind, ctypes.create_string_buffer(rule, len(rule)), 0)


def landlock_restrict_self(ruleset: int, flags: int = 0) -> None:
    """Put the rule set in force for this thread and all that it starts."""
    call("landlock_restrict_self", ruleset, flags)


def seccomp_filter(program: bytes, flags: int = 0) -> None:
    """Put a filter (packed `struct sock_filter`s) in force for this thread and all that it starts."""
    body = ctypes.create_string_buffer(program, len(program))
    head = (len(program) // 8).to_bytes(8, "little") + ctypes.addressof(body).to_bytes(8, "little")
    call("seccomp", SECCOMP_SET_MODE_FILTER, flags, ctypes.create_string_buffer(head, 16))
