"""The second wall: Landlock, by which a process gives up every path, port and peer but those it names.

It needs no privilege and no namespace, and stacks: a process can only give up more. What is not handled by the
kernel's version is left out and told. Source: `Documentation/userspace-api/landlock.rst` of the kernel.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Final

from dataproc.engine import syscalls

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = (1 << bit for bit in range(13, 16))
BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL = 1, 2

READ: Final = EXECUTE | READ_FILE | READ_DIR
# no sockets and no device nodes: what a worker may write to is data
WRITE: Final = (
    READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_FIFO | MAKE_SYM | REFER | TRUNCATE
)
DEVICES: Final = READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | IOCTL_DEV
_OF_A_FILE: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

# Version 1 (Linux 5.13 to 5.18) refuses every rename from one directory to another, which modules cannot live with.
OLDEST: Final = 2

# what each version of the kernel's interface brought, under the names that a report uses
PARTS: Final = (("files", 2), ("truncate", 3), ("tcp", 4), ("devices", 5), ("sockets", 6), ("signals", 6))


def abi() -> int:
    """The version that this kernel speaks; 0 where Landlock is missing or off."""
    try:
        return syscalls.landlock_abi()
    except OSError:
        return 0


@dataclass(frozen=True, slots=True)
class Rules:
    """What may still be reached; a `Ruleset` puts it in force.

    read: files and directories to read and execute, with all below. write: the same, and to change.
    devices: to read, write and ioctl. A path that does not exist is left out.
    network: leave TCP alone.
    """

    read: tuple[str, ...]
    write: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    network: bool = False

    def attributes(self, version: int) -> bytes:
        """`struct landlock_ruleset_attr`: the kinds of access that need a rule, as far as the version knows them."""
        ports = BIND_TCP | CONNECT_TCP if version >= 4 and not self.network else 0
        scopes = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL if version >= 6 else 0
        return b"".join(word.to_bytes(8, "little") for word in (handled_files(version), ports, scopes))


class Ruleset:
    """Rules on their way into force: prepared ahead, added to, then enforced."""

    def __init__(self, rules: Rules) -> None:
        self._version, self._network = abi(), rules.network
        self._descriptor = -1
        if self._version >= OLDEST:
            self._descriptor = syscalls.landlock_create_ruleset(rules.attributes(self._version))
            self.add(rules)

    def add(self, rules: Rules) -> None:
        """Further paths, as they stand now in the caller's mount tree."""
        if self._descriptor < 0:
            return
        files = handled_files(self._version)
        for paths, rights in ((rules.read, READ), (rules.write, WRITE), (rules.devices, DEVICES)):
            for path in paths:
                _allow(self._descriptor, path, rights & files)

    def enforce(self) -> frozenset[str]:
        """Give up all else, for good; the answer is the names of `PARTS` in force (none: no Landlock here).

        The process must have one thread (the others would stay free) and `no_new_privileges`. The object is of no use
        afterwards.
        """
        if self._descriptor < 0:
            return frozenset()
        try:
            syscalls.landlock_restrict_self(self._descriptor)
        finally:
            self.close()
        version = self._version
        return frozenset(part for part, since in PARTS if version >= since and not (part == "tcp" and self._network))

    def close(self) -> None:
        """Let it go, in force or not."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def handled_files(version: int) -> int:
    """Every kind of file access that this version can refuse."""
    newest = 16 if version >= 5 else 15 if version >= 3 else 14
    return (1 << newest) - 1


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_A_FILE  # the kernel refuses a rule that gives a file the rights of a directory
        rule = rights.to_bytes(8, "little") + place.to_bytes(4, "little")
        syscalls.landlock_add_rule(ruleset, syscalls.LANDLOCK_RULE_PATH_BENEATH, rule)
    finally:
        os.close(place)
