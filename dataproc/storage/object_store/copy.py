"""What this process knows of a session that it has a local copy of."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from dataproc.storage.folders import Tree, session_place
from dataproc.storage.object_store.index import Index, KeptFile, Signature
from dataproc.storage.usage.touches import Names, Touches
from dataproc.storage.usage.watch import Watch
from dataproc.types import Lease


@dataclass(eq=False)
class Copy:
    """One session's copy. `tree` is this very copy's: after a session was lost and fetched again, another's.

    index: the current revision. seen: each file as it was when it was kept. published: what the plain names surely
    are; None where a node died in the middle. orphans: whether earlier holders may have left objects that nothing
    names. dirty: something is not in the store yet. touched: what is to be looked at before the next commit, as `watch`
    told it. mapped: files that processes could write to unseen at the last look.
    """

    session: str
    tree: Tree
    lease: Lease
    index: Index
    seen: dict[str, Signature]
    published: Index | None
    orphans: bool = False
    dirty: bool = False
    failures: int = 0  # commits that the store did not take
    users: int = 0
    used: float = 0.0
    size: int = 0
    failed: set[str] = field(default_factory=set)  # keys of commits that may not have succeeded
    stale: set[str] = field(default_factory=set)  # keys that no current index names any more
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: asyncio.Task[None] | None = None
    publishing: asyncio.Task[None] | None = None
    touched: Touches = field(default_factory=lambda: Touches(sure=False))
    watch: Watch | None = None
    mapped: set[Names] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.size = self.index.size

    def supersede(self, index: Index, seen: dict[str, Signature], changed: set[str], size: int) -> None:
        """A commit has succeeded; it differs from the one before at the paths `changed`."""
        before = {kept.key for path in changed if isinstance(kept := self.index.entries.get(path), KeptFile)}
        needed = {kept.key for path in changed if isinstance(kept := index.entries.get(path), KeptFile)}
        self.stale |= (before | self._indices(self.index) | self.failed) - needed - self._indices(index)
        self.failed = set()
        self.index, self.seen, self.size, self.dirty = index, seen, size, False

    def _indices(self, index: Index) -> set[str]:
        return {index_key(self.session, revision) for revision in (index.revision, index.base) if revision}

    def needed(self, index: Index) -> set[str]:
        """All objects that an index stands on, and is told by."""
        return index.keys() | self._indices(index)

    def renewed(self, until: float) -> None:
        """The lease goes on."""
        self.lease = replace(self.lease, until=until)


def revisions_of(session_id: str) -> str:
    """Below which key a session's revisions lie."""
    return f"{session_place(session_id)}/.rev"


def index_key(session_id: str, revision: str) -> str:
    """The key of a revision's index."""
    return f"{revisions_of(session_id)}/{revision}/index.json"
