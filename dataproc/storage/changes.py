"""Which files of a session a run changed, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FEW = 8  # changed files that are looked at after the answer, or without a thread


@dataclass(frozen=True, slots=True)
class Changes:
    """Files of the session directory that are new, written to, or gone, by path, sorted."""

    created: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Touched:
    """What a run changed, by name, in the session directory `files`. owner: the workers' uid."""

    files: Path
    changes: Changes
    owner: int | None

    @property
    def names(self) -> tuple[str, ...]:
        """Every path."""
        return self.changes.created + self.changes.modified + self.changes.deleted

    @property
    def few(self) -> bool:
        """Whether looking at them costs next to nothing."""
        return len(self.changes.created) + len(self.changes.modified) <= FEW
