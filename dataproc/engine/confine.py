"""How a forked worker gives up everything but its session: places, user, bounds, Landlock, seccomp, in that order.

Standard library only. What is in force is reported by name; `off` leaves all of it out.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Any

from dataproc.engine import bounds, landlock, mounts, namespaces, seccomp
from dataproc.engine import syscalls as sys_

PLACES = {
    "session": mounts.SESSION,
    "application": mounts.APPLICATION,
    "work": mounts.WORK,
    "locks": mounts.LOCKS,
    **mounts.XDATA,
}
READ_ONLY = frozenset({"given"})  # what the server puts before a script: files that others may be reading too
READ = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/etc", "/opt", mounts.MODULE, "/proc")
PRIVATE = ("/tmp", "/dev/shm")  # noqa: S108 - each worker's own


@dataclass(frozen=True, slots=True)
class Walls:
    """What is to be put in force, as the server settled it at its start."""

    namespaces: bool
    landlock: bool
    seccomp: bool
    network: bool = False
    tmp: int = 0
    read: tuple[str, ...] = ()  # further folders that may be read: the interpreter's, the code's

    @classmethod
    def of(cls, config: dict[str, Any]) -> Walls:
        """From the zygote's configuration."""
        return cls(**{**config, "read": tuple(config["read"])})


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of one worker: fixed places inside its own mounts, or without namespaces real paths."""

    paths: dict[str, str]
    trees: dict[str, int] = field(default_factory=dict)  # detached mounts, by the same names

    def attach(self) -> None:
        """Put the mounts where they belong."""
        for name, tree in self.trees.items():
            sys_.move_mount(tree, self.paths[name])
            os.close(tree)


def surroundings(walls: Walls) -> None:
    """The part that needs no session: mounts of the worker's own."""
    sys_.prctl(sys_.PR_SET_CHILD_SUBREAPER, 1)  # what a method leaves behind becomes the worker's, and is ended
    if walls.namespaces:
        sys_.unshare(sys_.CLONE_NEWNS | sys_.CLONE_NEWIPC)
        mounts.worker_root(walls.tmp)


def confine(walls: Walls, places: Places, limits: bounds.Limits) -> list[str]:
    """Give up the rest, for good; the names of the layers in force."""
    layers = []
    if walls.namespaces:
        places.attach()
        ids = os.geteuid(), os.getegid()
        sys_.unshare(sys_.CLONE_NEWUSER)  # processes are counted by user namespace: nobody else is starved
        namespaces.map_ids(*ids)
        bounds.share_watches()
        layers.append("namespaces")
    bounds.apply(limits)
    bounds.die_first()
    if walls.namespaces:
        bounds.drop_capabilities()
    sys_.no_new_privileges()
    if walls.landlock:
        layers += sorted(f"landlock-{part}" for part in rules(walls, places).enforce())
    if walls.seccomp:
        seccomp.install(seccomp.filter_bytes("worker", walls.network))
        layers.append("seccomp")
    return layers


def rules(walls: Walls, places: Places) -> landlock.Rules:
    """What Landlock leaves to a worker."""
    prefixes = tuple({sys.prefix, sys.base_prefix})
    write = tuple(path for name, path in places.paths.items() if name not in READ_ONLY)
    write += PRIVATE if walls.namespaces else ()
    read = tuple(path for name, path in places.paths.items() if name in READ_ONLY)
    # /dev whole: its few nodes are all there is behind namespaces, and without them each is as harmless as its mode.
    return landlock.Rules(READ + prefixes + walls.read + read, write, ("/dev",), walls.network)
