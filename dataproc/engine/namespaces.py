"""How a process of ours enters its namespaces, and what it keeps of its privileges. Standard library only.

Facts: user_namespaces(7), pid_namespaces(7), capabilities(7).
"""

from __future__ import annotations

import os

from dataproc.engine import syscalls as sys_

ZYGOTE = sys_.CLONE_NEWUSER | sys_.CLONE_NEWNS | sys_.CLONE_NEWPID | sys_.CLONE_NEWIPC | sys_.CLONE_NEWUTS
# A zygote makes namespaces for its workers, and mounts in them; nothing else is kept over its exec.
ZYGOTE_CAPABILITIES = (sys_.CAP_SYS_ADMIN,)


def enter_keeper() -> str | None:
    """Move this process into the keeper's mount and PID namespaces. None, or why that cannot be done."""
    root, ids = is_mighty(), (os.geteuid(), os.getegid())
    try:
        sys_.unshare(sys_.CLONE_NEWNS | sys_.CLONE_NEWPID | (0 if root else sys_.CLONE_NEWUSER))
        if not root:
            map_ids(*ids)
        sys_.mount("", "/", "", sys_.MS_REC | sys_.MS_PRIVATE)
    except OSError as error:
        return str(error)
    return None


def is_mighty() -> bool:
    """Whether this process is root with CAP_SYS_ADMIN."""
    with open("/proc/self/status") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff"))
    return os.geteuid() == 0 and bool(effective >> sys_.CAP_SYS_ADMIN & 1)


def unprivileged(uid: int | None) -> None:
    """Stop being root, where we are."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        sys_.prctl(sys_.PR_SET_DUMPABLE, 1)  # after a change of uid /proc/self is root's, and no map can be written


def enter(uid: int | None, *, network: bool) -> None:
    """The namespaces of a zygote: user, mount, PID (for its children), IPC, UTS, and without `network` network."""
    unprivileged(uid)
    ids = os.geteuid(), os.getegid()
    sys_.unshare(ZYGOTE | (0 if network else sys_.CLONE_NEWNET))
    map_ids(*ids)


def map_ids(uid: int, gid: int) -> None:
    """The same ids inside the new user namespace as outside, and no others."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        sys_.tell(f"/proc/self/{name}", text)


def keep_capabilities() -> None:
    """Let what a zygote needs survive its exec as an unprivileged uid."""
    sys_.set_capabilities(ZYGOTE_CAPABILITIES, ZYGOTE_CAPABILITIES)
    sys_.raise_ambient(ZYGOTE_CAPABILITIES)
