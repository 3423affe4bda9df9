"""Tables of a session: look at them, ask them in SQL, convert and draw them. On DuckDB."""

from . import shapes as shapes
from . import views as views
from .methods import module

__all__ = ["module"]
