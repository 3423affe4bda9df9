"""Bars for long transfers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = "bool | Callable[[int, int | None], None]"
"""True: a bar on stderr, by `rich` (extra `progress`); or what is called with the bytes done, and in all if known."""


@contextmanager
def advancing(progress: Progress, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """What is to be called with the number of bytes just done."""
    if progress is True:
        with _bar(title, total) as advance:
            yield advance
        return
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if callable(progress):
            progress(done, total)

    yield count


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars
    except ImportError:
        raise ImportError("progress=True needs rich: pip install 'dataproc-client[progress]'") from None
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(escape(title), total=total)
        yield lambda more: bars.advance(task, more)
