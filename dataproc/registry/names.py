"""Names of modules: one canonical form, so that a scope cannot be got round by another spelling."""

from __future__ import annotations

import re

CANONICAL = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def folded(name: str) -> str:
    """Lower case, with `_` as `-`: how names and aliases are compared."""
    return name.lower().replace("_", "-")


def canonical(name: str) -> str | None:
    """The canonical name of a folder or an entry point; None where it has none (dots, blanks, other letters)."""
    found = folded(name)
    return found if CANONICAL.fullmatch(found) else None
