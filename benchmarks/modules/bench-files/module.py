"""Fills a session directory."""

from __future__ import annotations

from dataproc import Context, Module

module = Module("bench-files", version="1.0.0", description="Makes many small files.")


@module.method(timeout=600)
def fill(ctx: Context, files: int) -> int:
    """Make that many files in one directory."""
    for number in range(files):
        (ctx.session / f"file-{number:06}.txt").write_bytes(b"x")
    return files


@module.method
def look(ctx: Context) -> int:
    """How many names there are in the directory; changes nothing."""
    return len(list(ctx.session.iterdir()))
