"""Gives back what it is given, in the ways in which a method can be written."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

from pydantic import Field

from dataproc import Context, Module

module = Module("com.example.echo", version="2.1.0", description="Gives back what it is given.")


@module.method
def echo(value: Any = None) -> Any:
    """The value as it came."""
    return value


@module.method("echo-later")
async def echo_later(value: Any = None) -> Any:
    """The value, from a coroutine."""
    return value


@module.method
def nothing() -> None:
    """Returns nothing, and says so."""


@module.method
def unsaid():
    """Returns nothing, and does not say so."""


@module.method(timeout=5, grace=1, exclusive=True, reads_only=True)
def day_after(day: datetime.date, days: Annotated[int, Field(ge=0, le=366)] = 1) -> datetime.date:
    """A day that comes later."""
    return day + datetime.timedelta(days=days)


@module.method
def where(ctx: Context) -> dict[str, str]:
    """The ids that the run knows itself by, and its session directory."""
    return {"session": str(ctx.session), "session_id": ctx.session_id, "run_id": ctx.run_id}


@module.method
def fail(message: str = "it went wrong") -> None:
    """Raises ValueError."""
    raise ValueError(message)
