"""`Generation`: one state of a module's code, as the registry finds it and the engine runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Generation:
    """A module's code that will never change.

    module: the canonical name. digest: hex of the content. location: the folder of this generation's own read-only
    copy, or the value of the entry point. source: the folder it was copied from. fork: as described; True until then.
    interpreter: the Python of the module's own environment, or None for the server's.
    """

    module: str
    digest: str
    kind: Literal["folder", "entry_point", "script"]
    location: str
    source: Path | None = field(default=None, compare=False)
    fork: bool = field(default=True, compare=False)
    interpreter: str | None = None
