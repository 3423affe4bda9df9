"""Tables of a session: look at them, ask them in SQL, convert and draw them. On DuckDB."""

from .methods import module

__all__ = ["module"]
