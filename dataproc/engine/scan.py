"""The keeper's eye on workers: memory of each worker's whole tree, and processes that should not be there.

A worker's tree is its PID namespace, which no process can leave. Standard library only.
Facts: proc_pid_stat(5).
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from dataproc.engine import bounds

FAST, SLOW = 0.1, 0.5  # seconds between looks: while a tree grows, and while none does
OWN = 2  # the namespace's process 1 and the worker


@dataclass(slots=True)
class Watched:
    """A tree under watch and what it may hold: a worker's, or (`worker` negative) a zygote's own, without its workers.

    processes: more of them end the tree; 0 for a worker, which counts for itself (RLIMIT_NPROC).
    """

    worker: int
    memory: int
    processes: int = 0
    pids: list[int] = field(default_factory=list)
    pulse: tuple[int, int] = (0, 0)
    used: int = 0
    told: bool = False


class Watch:
    """What `tick` looks at, keyed by PID namespace."""

    def __init__(self) -> None:
        self._trees: dict[int, Watched] = {}
        self._next = 0.0
        self._growing = False

    def add(self, worker: int, namespace: int, memory: int, processes: int = 0) -> None:
        """Watch a worker, or a zygote, from now on."""
        self._trees[namespace] = Watched(worker, memory, processes)

    def drop(self, worker: int) -> None:
        """Stop watching a worker."""
        self._trees = {namespace: tree for namespace, tree in self._trees.items() if tree.worker != worker}

    def pause(self) -> float:
        """Seconds until the next look is due; a day where nothing is watched."""
        return max(0.0, self._next - time.monotonic()) if self._trees else 86400.0

    def tick(self) -> list[dict[str, Any]]:
        """Look, if it is time: kill trees above their bound; tell of these, and of processes beside a worker."""
        if not self._trees or time.monotonic() < self._next:
            return []
        self._gather()
        events, self._growing = [], False
        for tree in self._trees.values():
            events += self._judge(tree)
        self._next = time.monotonic() + (FAST if self._growing else SLOW)
        return events

    def _gather(self) -> None:
        for tree in self._trees.values():
            tree.pids.clear()
        for name in os.listdir("/proc"):
            if name.isdigit():
                found = self._trees.get(namespace_of(int(name)))
                if found is not None:
                    found.pids.append(int(name))

    def _judge(self, tree: Watched) -> list[dict[str, Any]]:
        before, tree.pulse = tree.pulse, pulse(tree.pids)
        over = tree.pulse != before and self._held(tree) > tree.memory
        if over or 0 < tree.processes < len(tree.pids):
            for pid in tree.pids:
                kill(pid)
            told, tree.told = tree.told, True
            return [] if told else [{"event": "memory", "worker": tree.worker, "used": tree.used, "limit": tree.memory}]
        extra = len(tree.pids) - OWN
        return [{"event": "company", "worker": tree.worker, "extra": extra}] if extra > 0 < tree.worker else []

    def _held(self, tree: Watched) -> int:
        before, tree.used = tree.used, bounds.tree_memory(tree.pids, tree.memory)
        if bounds.machine_shared_memory() > tree.memory // 2:  # only then can a tree have hidden as much
            tree.used += bounds.unmapped_memory(tree.pids)
        self._growing |= tree.used > before + 2**20
        return tree.used


def namespace_of(pid: int) -> int:
    """The inode of a process's PID namespace; 0 where it has gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return 0


def pulse(pids: list[int]) -> tuple[int, int]:
    """Ticks of processor time and pages of memory of these processes; a tree where neither changed holds no more."""
    ticks = pages = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
        pages += int(fields[21])
    return ticks, pages


def kill(pid: int) -> None:
    """SIGKILL, where the process is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
