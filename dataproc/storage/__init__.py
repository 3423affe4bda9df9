"""Where sessions keep their files. `open_workspaces` chooses what stands behind them."""

from __future__ import annotations

from dataproc.clock import Clock, SystemClock
from dataproc.settings import Settings
from dataproc.storage.backend import LocalBackend
from dataproc.storage.changes import Changes
from dataproc.storage.folders import Folders, Tree
from dataproc.storage.object_store.copies import CopyBackend
from dataproc.storage.object_store.leases import Leases, Ledger, MemoryLeases
from dataproc.storage.object_store.s3 import objects_of
from dataproc.storage.usage.limits import Limits
from dataproc.storage.usage.quotas import Quotas
from dataproc.storage.usage.usages import Usages
from dataproc.storage.workspace import Workspace, Workspaces
from dataproc.types import Usage

__all__ = ["Changes", "Tree", "Usage", "Workspace", "Workspaces", "open_workspaces"]


def open_workspaces(
    settings: Settings, clock: Clock | None = None, leases: Leases | None = None, node: str = "node",
    usages: Usages | None = None,
) -> Workspaces:  # fmt: skip
    """The workspaces in the storage that the settings name.

    leases: who has which session, where the storage is no folder; by default nobody but this object has any.
    node: the server's name, under which it keeps copies. usages: what is kept of sessions' use, for all
    nodes to see. Raises InvalidParams for a storage that cannot be opened.
    """
    clock = clock or SystemClock()
    if settings.local_storage is not None:
        folders = Folders.of(settings, settings.local_storage)
        return Workspaces(LocalBackend(folders), clock, Quotas(Limits.of(settings), folders.root, usages))
    folders = Folders.of(settings, settings.node_dir / "copies" / node)
    quotas = Quotas(Limits.of(settings), folders.root, usages, noting=True)
    leases = leases or MemoryLeases(Ledger(), clock, settings.lease)
    backend = CopyBackend(objects_of(settings), folders, leases, clock, quotas, settings.copies_size)
    return Workspaces(backend, clock, quotas)
