"""How a forked worker gives up all but its session: its user and its system calls, then bounds and Landlock.

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


class Confinement:
    """Of one worker, in two steps: what needs no session is done ahead of need, while nobody waits for it.

    Between them nothing is left to the process but what `finish` needs. The first step also brings the code and the
    pages of the second to hand: run for the first time after a fork, it takes ten times as long.
    """

    def __init__(self, walls: Walls) -> None:
        self._walls = walls
        sys_.prctl(sys_.PR_SET_CHILD_SUBREAPER, 1)  # what a method leaves behind becomes the worker's, and is ended
        if walls.namespaces:
            self._own_namespaces()
        bounds.apply_fixed()
        bounds.die_first()
        sys_.no_new_privileges()
        self._rules = landlock.Ruleset(known(walls)) if walls.landlock else None
        if walls.seccomp:
            seccomp.install(seccomp.filter_bytes("worker", walls.network))

    def _own_namespaces(self) -> None:
        sys_.unshare(sys_.CLONE_NEWNS | sys_.CLONE_NEWIPC)
        mounts.worker_root(self._walls.tmp)  # a /proc takes rights that the next step ends
        ids = os.geteuid(), os.getegid()
        # Processes are counted by user namespace: nobody else is starved. The mounts again: what is attached to has to
        # be of the same namespace.
        sys_.unshare(sys_.CLONE_NEWUSER | sys_.CLONE_NEWNS)
        namespaces.map_ids(*ids)
        bounds.share_out()
        bounds.keep_capabilities(sys_.CAP_SYS_ADMIN)

    def finish(self, places: Places, limits: bounds.Limits) -> list[str]:
        """Take the session's places and give up the rest, for good; the names of the layers in force."""
        layers = []
        if self._walls.namespaces:
            places.attach()
            layers.append("namespaces")
        bounds.apply(limits)
        if self._walls.namespaces:
            bounds.drop_capabilities()
        if self._rules is not None:
            self._rules.add(own(places))
            layers += sorted(f"landlock-{part}" for part in self._rules.enforce())
        if self._walls.seccomp:
            layers.append("seccomp")
        return layers


def known(walls: Walls) -> landlock.Rules:
    """What Landlock leaves to every worker of a zygote."""
    prefixes = tuple({sys.prefix, sys.base_prefix})
    # /dev whole: its few nodes are all there is behind namespaces, and without them each is as harmless as its mode.
    return landlock.Rules(READ + prefixes + walls.read, PRIVATE if walls.namespaces else (), ("/dev",), walls.network)


def own(places: Places) -> landlock.Rules:
    """What it leaves to one worker besides."""
    read = tuple(path for name, path in places.paths.items() if name in READ_ONLY)
    write = tuple(path for name, path in places.paths.items() if name not in READ_ONLY)
    return landlock.Rules(read, write)
