"""Write constraints.txt: the exact versions, as installed here, of everything that `make install` needs.

Names and versions only. pip finds where to fetch them by its own configuration, so the file holds on any mirror.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def _declared(pyproject: Path) -> list[str]:
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = chain.from_iterable(project.get("optional-dependencies", {}).values())
    return [*project.get("dependencies", ()), *extras]


def closure(roots: list[str]) -> dict[str, str]:
    """Every distribution that the roots need on this machine, by canonical name, with its version."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [Requirement(root) for root in roots]
    while queue:
        wanted = queue.pop()
        name, extras = re.sub(r"[-_.]+", "-", wanted.name).lower(), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        dist = distribution(name)
        found[name] = dist.version.partition("+")[0]
        for need in map(Requirement, dist.requires or ()):
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                queue.append(need)
    return found


def main() -> None:
    """Write the file."""
    try:
        pins = closure([need for part in (".", "clients") for need in _declared(ROOT / part / "pyproject.toml")])
    except PackageNotFoundError as missing:
        raise SystemExit(f"{missing.name} is not installed here: run `make install` first") from None
    lines = ["# Exact versions that are tested together. Written by tools/constraints.py (`make constraints`)."]
    lines += [f"{name}=={version}" for name, version in sorted(pins.items())]
    (ROOT / "constraints.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
