"""Where sessions keep their files. `open_workspaces` chooses what stands behind them."""

from __future__ import annotations

from dataproc.clock import Clock, SystemClock
from dataproc.settings import Settings
from dataproc.storage.backend import Backend, LocalBackend
from dataproc.storage.copies import CopyBackend
from dataproc.storage.folders import Folders, Tree
from dataproc.storage.objects import Objects
from dataproc.storage.workspace import Workspace, Workspaces

__all__ = ["Tree", "Workspace", "Workspaces", "open_workspaces"]


def open_workspaces(settings: Settings, clock: Clock | None = None) -> Workspaces:
    """The workspaces in the storage that the settings name. Raises ValueError for one that is not supported."""
    return Workspaces(_backend(settings), clock or SystemClock())


def _backend(settings: Settings) -> Backend:
    if settings.local_storage is not None:
        return LocalBackend(Folders.of(settings, settings.local_storage))
    if settings.storage_url.startswith("memory://"):
        return CopyBackend(Objects(settings.storage_url), Folders.of(settings, settings.node_dir / "copies"))
    raise ValueError("DATAPROC_STORAGE_URL must be a local folder or memory://")
