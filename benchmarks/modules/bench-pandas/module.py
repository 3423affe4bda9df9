"""The work of `test-module`'s `append`, in a module with a heavy import."""

from __future__ import annotations

import pandas  # type: ignore[import-untyped]  # noqa: F401 - its import is what is measured

from dataproc import Context, Module

module = Module("bench-pandas", version="1.0.0", description="Appends a line, having imported pandas.")

LINE = b"call\n"


@module.method
def append(ctx: Context) -> int:
    """Append a line to calls.log, and answer how many there are."""
    with (ctx.session / "calls.log").open("a+b") as lines:
        lines.write(LINE)
        lines.flush()
        return lines.tell() // len(LINE)
