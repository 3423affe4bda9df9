"""Which environment a module runs in: its own, where its folder says what it needs, else the server's.

An environment is named by what it was made of: the lock, the interpreter's version. It is made beside and renamed, so
that one that is there is whole.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataproc.module import Generation, ModuleBroken

LOCK = "requirements.lock"  # in the module's folder, made by `module install`
AUTHOR_API = ("pydantic>=2.7", "fsspec", "filelock")  # what `dataproc.module` imports: part of every environment
_INPUTS = re.compile(r"^# inputs: ([0-9a-f]{64})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a module's folder asks for. requirements: one a line, as pip reads them. python: a specifier, or empty."""

    requirements: str
    python: str

    @property
    def digest(self) -> str:
        """Changes when another lock is needed."""
        return hashlib.sha256("\0".join((self.requirements, self.python, *AUTHOR_API)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Environments:
    """The environments below `root`, one folder each."""

    root: Path

    def equip(self, generation: Generation) -> Generation:
        """The generation with its interpreter. ModuleBroken, with the remedy, where its environment is not there."""
        if generation.kind == "entry_point" or (needs := read_needs(Path(generation.location))) is None:
            return generation
        remedy = f"run `dataproc module install {generation.module}`"
        lock = locked(Path(generation.location), needs)
        if lock is None:
            raise ModuleBroken(f"its environment is missing: {remedy}")
        interpreter = self.place(lock) / "bin" / "python"
        if not interpreter.exists():
            raise ModuleBroken(f"its environment is missing here: {remedy}")
        return replace(generation, interpreter=str(interpreter))

    def place(self, lock: str) -> Path:
        """Where the environment of that lock is, or is to be."""
        made_of = f"{lock}\0{sys.version_info[:2]}\0{sys.platform}"
        return self.root / hashlib.sha256(made_of.encode()).hexdigest()[:32]


def read_needs(folder: Path) -> Needs | None:
    """What the folder declares: `requirements.txt`, else `pyproject.toml`; or None. May raise ModuleBroken."""
    try:
        project = _project(folder)
        if (file := folder / "requirements.txt").is_file():
            return Needs(file.read_text(), str((project or {}).get("requires-python", "")))
        if project is None:
            return None
        return Needs("\n".join(map(str, project.get("dependencies", ()))), str(project.get("requires-python", "")))
    except (OSError, ValueError, AttributeError, TypeError) as wrong:
        raise ModuleBroken(f"its requirements cannot be read: {wrong}") from None


def _project(folder: Path) -> dict[str, Any] | None:
    """The table `project`; None where there is no pyproject.toml, or one that declares no project."""
    file = folder / "pyproject.toml"
    found = tomllib.loads(file.read_text()).get("project") if file.is_file() else None
    return found if found is None else dict(found)


def locked(folder: Path, needs: Needs) -> str | None:
    """The text of the folder's lock, if it was made of these needs."""
    try:
        text = (folder / LOCK).read_text()
    except OSError:
        return None
    made_of = _INPUTS.search(text)
    return text if made_of is not None and made_of[1] == needs.digest else None
