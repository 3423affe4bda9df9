"""What was touched in a session since it was last looked at, by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dataproc.storage.folders import RUNS

MOST = 10_000  # names; beyond, a walk is no dearer
NOT_KEPT = ("modules", RUNS)

STAT = 0  # look whether it was changed, by its size and times
READ = 1  # the times need not tell: read it where they are the same
BELOW = 2  # a directory came, or went: look at all below it

Names = tuple[str, ...]


@dataclass(slots=True)
class Touches:
    """names: how to look at each. sure: nothing else was touched; otherwise only a walk tells."""

    names: dict[Names, int] = field(default_factory=dict)
    sure: bool = True

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.names) or not self.sure

    def add(self, names: Names, how: int) -> None:
        """One more."""
        if names[:2] == NOT_KEPT:
            return
        if len(self.names) >= MOST and names not in self.names:
            self.names.clear()
            self.sure = False
        self.names[names] = max(how, self.names.get(names, STAT))

    def add_all(self, many: Iterable[Names], how: int) -> None:
        """Many more."""
        for names in many:
            self.add(names, how)

    def merge(self, other: Touches) -> None:
        """All that the other has."""
        for names, how in other.names.items():
            self.add(names, how)
        self.sure &= other.sure
