"""dataproc: Python methods by JSON-RPC, in session directories that only the session can reach.

For module authors: `Module`, `Context`. The server's rooms are imported by name, never from here, and the author's
names are loaded when they are first asked for: the keeper and the zygote start without pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataproc.module import Context, Module

__all__ = ["Context", "Module"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from dataproc import module

        return getattr(module, name)
    raise AttributeError(f"module 'dataproc' has no attribute {name!r}")
