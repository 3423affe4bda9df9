"""`ctx.log`: one JSON line an event on stderr, which is kept with the run."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json


class Logger:
    """A small structured logger: `ctx.log.info("rows read", rows=1461)`.

    `ctx.log.info("%d rows", 1461)` fills the event in, as the standard library does. Values that have no JSON form are
    written as their `repr`. A line never raises.
    """

    __slots__ = ()

    def debug(self, event: str, /, *args: Any, **values: Any) -> None:
        """What only somebody who looks for a fault wants to know."""
        self._line("debug", event, args, values)

    def info(self, event: str, /, *args: Any, **values: Any) -> None:
        """What happened."""
        self._line("info", event, args, values)

    def warning(self, event: str, /, *args: Any, **values: Any) -> None:
        """What may be wrong."""
        self._line("warning", event, args, values)

    def error(self, event: str, /, *args: Any, **values: Any) -> None:
        """What is wrong."""
        self._line("error", event, args, values)

    def _line(self, level: str, event: str, args: tuple[Any, ...], values: dict[str, Any]) -> None:
        if args:
            event = _filled(event, args)
        head = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z", "level": level, "event": event}
        try:
            line = to_json({**values, **head}, fallback=_shown, inf_nan_mode="strings").decode()
        except Exception:
            line = to_json({**head, "values": "not writable as JSON"}).decode()
        try:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - stderr is what is kept
        except (OSError, ValueError):  # the author closed it
            return


def _filled(event: str, args: tuple[Any, ...]) -> str:
    try:
        return event % args
    except Exception:  # too few, too many, or one that cannot be written
        return f"{event} {_shown(args)}"


def _shown(value: Any) -> str:
    try:
        return repr(value)[:1000]
    except Exception:
        return f"<{type(value).__name__}>"
