"""How one call of a method ended, as plain values: what a worker sends on, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Returned:
    """The method returned. `payload` is UTF-8 JSON; `messages` tell what was changed on the way to it."""

    payload: bytes
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The params were refused before the method began: one `{loc, msg, type}` a field."""

    errors: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Raised:
    """The method raised. `traceback` holds frames of the module alone; `exit_code` is set by `sys.exit`."""

    type: str
    message: str
    traceback: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class NotJson:
    """The method returned what cannot be written as JSON; `type` names it, `reason` says why."""

    type: str
    reason: str = ""


Reply: TypeAlias = Returned | Refused | Raised | NotJson
