"""Reading a compose file: YAML that authors wrote, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dataproc.module import ModuleBroken

MOST_BYTES = 2**20
MOST_WRITTEN_OUT = 4 * MOST_BYTES  # characters and values


def load(file: Path) -> dict[str, Any]:
    """What the file says. ModuleBroken where it is no such file, or its aliases make more of it than can be meant."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ModuleBroken(f"{file.name} is larger than {MOST_BYTES} bytes")
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1} column {mark.column + 1}" if mark is not None else ""
        raise ModuleBroken(f"{file.name} is no YAML{at}") from None
    if not isinstance(told, dict):
        raise ModuleBroken(f"{file.name} is to be a mapping with `services`")
    if not _is_small(told):
        raise ModuleBroken(f"{file.name} is larger than {MOST_WRITTEN_OUT} bytes when its aliases are written out")
    return told


def _is_small(told: Any) -> bool:
    """Aliases of aliases take no room as they are read, and all there is once somebody writes them out."""
    left, size = [told], 0
    while left and size <= MOST_WRITTEN_OUT:
        value = left.pop()
        size += 1 + (len(value) if isinstance(value, str) else 0)
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, (list, set, tuple)):
            left += value
    return size <= MOST_WRITTEN_OUT
