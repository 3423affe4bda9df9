"""Where modules come from: folders of the modules directory, and installed entry points."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from dataproc.module import Generation
from dataproc.registry.copies import Copies, Signature, signature
from dataproc.registry.names import canonical

GROUP = "dataproc.modules"


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder of the modules directory."""

    folder: Path

    def signature(self) -> Signature:
        """Differs where the code may differ."""
        return signature(self.folder)

    def take(self, module: str, copies: Copies) -> Generation:
        """Today's generation: a copy of the folder."""
        return copies.take(module, self.folder)


@dataclass(frozen=True, slots=True)
class EntrySource:
    """An entry point of an installed distribution; its code changes only with the installation."""

    value: str
    release: str

    def signature(self) -> Signature:
        """An entry point is never half-written."""
        return ()

    def take(self, module: str, copies: Copies) -> Generation:
        """The installed code, where it is."""
        digest = hashlib.sha256(f"{self.value}\0{self.release}".encode()).hexdigest()
        return Generation(module, digest, "entry_point", self.value)


Source = FolderSource | EntrySource


@dataclass(frozen=True, slots=True)
class Found:
    """The modules that there are by canonical name, and what an operator should be told about the rest."""

    sources: dict[str, Source]
    warnings: tuple[str, ...]


def installed() -> list[EntryPoint]:
    """The entry points of this environment. Slow (it reads every distribution): asked for once."""
    return sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))


def find_sources(modules_dir: Path, points: Sequence[EntryPoint]) -> Found:
    """Look once. A folder hides an entry point of the same name; of two folders that differ only in spelling the
    first is served. Names that start with `.` or `_` are nobody's module.
    """
    sources: dict[str, Source] = {}
    warnings: list[str] = []
    for folder in _folders(modules_dir):
        name = canonical(folder.name)
        if name is None:
            warnings.append(f"folder {folder.name!r} is no name for a module: letters, digits, '-' and '_', no dots")
        elif name in sources:
            warnings.append(f"folder {folder.name!r} is not served: another one is {name!r} too")
        else:
            sources[name] = FolderSource(folder)
    for point in points:
        name = canonical(point.name)
        if name is None:
            warnings.append(f"entry point {point.name!r} is no name for a module: letters, digits, '-' and '_'")
        elif name in sources:
            hider = "a folder" if isinstance(sources[name], FolderSource) else "another entry point"
            warnings.append(f"entry point {point.name!r} ({point.value}) is hidden by {hider} of that name")
        else:
            release = f"{point.dist.name} {point.dist.version}" if point.dist is not None else ""
            sources[name] = EntrySource(point.value, release)
    return Found(sources, tuple(warnings))


def _folders(modules_dir: Path) -> list[Path]:
    try:
        return sorted(path for path in modules_dir.iterdir() if path.name[0] not in "._" and path.is_dir())
    except OSError:  # there is no such folder, or not yet
        return []
