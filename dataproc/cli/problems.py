"""How a command fails: one line that says what and what to do, and an exit code that says whose turn it is."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from dataproc.settings import Settings


class Exit(IntEnum):
    """Exit codes. A method that ended by `sys.exit(n)` gives n instead of `FAILED`."""

    OK = 0
    FAILED = 1  # the method failed, or doctor found something missing
    USAGE = 2  # wrong arguments or settings
    REFUSED = 3  # the server said no: credentials, scopes, a session that is over, nothing of that name
    UNAVAILABLE = 4  # nobody answers, or the server asks to try again later
    INTERNAL = 70  # our fault
    INTERRUPTED = 130  # Ctrl-C


class CommandError(Exception):
    """What a user is told, in one line with the remedy, and the exit code."""

    def __init__(self, message: str, code: int = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code


def load_settings() -> Settings:
    """The settings in force, or a line for each that is wrong, under the name that the user set."""
    from pydantic import ValidationError

    from dataproc.settings import Settings

    try:
        return Settings()
    except ValidationError as wrong:
        raise CommandError("wrong settings\n" + "\n".join(f"  {_line(error)}" for error in wrong.errors())) from None
    except (OSError, ValueError) as unreadable:
        raise CommandError(f"cannot read the settings: {unreadable}") from None


def _line(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    given = "" if "secret" in name or "url" in name else f" (it is {error['input']!r})"
    return f"DATAPROC_{name.upper()}: {message}{given}"
