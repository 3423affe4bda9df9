"""Where sessions keep their files. `open_workspaces` chooses what stands behind them."""

from __future__ import annotations

from dataproc.clock import Clock, SystemClock
from dataproc.errors import StorageUnavailable
from dataproc.settings import Settings
from dataproc.storage.backend import LocalBackend
from dataproc.storage.folders import Folders, Tree
from dataproc.storage.workspace import Workspace, Workspaces

__all__ = ["Tree", "Workspace", "Workspaces", "open_workspaces"]


def open_workspaces(settings: Settings, clock: Clock | None = None) -> Workspaces:
    """The workspaces in the storage that the settings name. Raises StorageUnavailable."""
    if settings.local_storage is None:
        raise StorageUnavailable("only local")
    folders = Folders.of(settings, settings.local_storage)
    return Workspaces(LocalBackend(folders), clock or SystemClock())
