"""Which layers of the sandbox are really in force here, found by confining a worker and asking it."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from dataproc.engine import landlock
from dataproc.engine.local import LocalEngine
from dataproc.errors import DataprocError
from dataproc.settings import Settings

log = structlog.get_logger(__name__)

NAMESPACES_REMEDY = (
    "allow user namespaces to this user (sysctl user.max_user_namespaces, and kernel.unprivileged_userns_clone or "
    "kernel.apparmor_restrict_unprivileged_userns where the system has them); in a container, allow the system calls "
    "unshare, mount, open_tree, move_mount and an unmasked /proc"
)
LANDLOCK_REMEDY = "boot a kernel with Landlock (5.19 or newer, `lsm=landlock,…` among its modules)"
NEWER_KERNEL = "use a newer kernel: 6.2 for truncate, 6.7 for TCP, 6.10 for devices, 6.12 for sockets and signals"
SECCOMP_REMEDY = "run on x86_64 or aarch64 with a kernel that has seccomp filters"


class SandboxError(DataprocError):
    """The walls that the settings demand do not stand here."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: whether it is in force, what it does, and what to do where it is not."""

    name: str
    in_force: bool
    detail: str
    remedy: str


def layers(engine: LocalEngine) -> list[Layer]:
    """All layers, as the engine's trial worker found them."""
    found = set(engine.layers)
    off = engine.settings.sandbox == "off"
    why = engine.missing or ("switched off" if off else "")
    listed = [
        Layer(
            "namespaces",
            "namespaces" in found,
            why or "own user, mount, PID, IPC, UTS and network namespace; the storage folder is not in its mounts",
            NAMESPACES_REMEDY,
        )
    ]
    for part, _ in landlock.PARTS:
        name = f"landlock-{part}"
        remedy = LANDLOCK_REMEDY if part == "files" else NEWER_KERNEL
        listed.append(Layer(name, name in found, f"Landlock, ABI {landlock.abi()}", remedy))
    listed.append(Layer("seccomp", "seccomp" in found, "a filter of system calls", SECCOMP_REMEDY))
    remedy = "set DATAPROC_SANDBOX to auto or require"
    return [replace(one, remedy="" if one.in_force else remedy if off else one.remedy) for one in listed]


def settle(settings: Settings, engine: LocalEngine) -> None:
    """Refuse to go on with fewer walls than the settings demand, and tell what is missing. Raises SandboxError."""
    missing = [layer for layer in layers(engine) if not layer.in_force]
    for layer in missing:
        log.warning("sandbox.layer_missing", layer=layer.name, detail=layer.detail, remedy=layer.remedy)
    if settings.sandbox == "off" or not missing:
        return
    names = ", ".join(layer.name for layer in missing)
    remedies = "; ".join(dict.fromkeys(layer.remedy for layer in missing))
    if settings.sandbox == "require":
        raise SandboxError(f"DATAPROC_SANDBOX=require, but these layers are not in force: {names}: {remedies}")
    if not {"namespaces", "landlock-files"} & set(engine.layers):
        raise SandboxError(f"neither namespaces nor Landlock can be put in force here: {remedies}")


def probe(settings: Settings) -> list[Layer]:
    """Try the walls as a server would, with a folder of its own, and end everything again."""
    return asyncio.run(_probe(settings))


async def _probe(settings: Settings) -> list[Layer]:
    with tempfile.TemporaryDirectory(prefix="dataproc-doctor-") as folder:
        engine = LocalEngine(settings.model_copy(update={"cache_dir": Path(folder)}), "doctor")
        try:
            await engine.start()
            return layers(engine)
        finally:
            await engine.stop()
