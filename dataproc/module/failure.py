"""What is told of an exception that left an author's code.

The exception is hostile: its `__str__` may raise, lie about its type, or be ten megabytes long; its chain may be
endless. Only frames of the module's own files are shown, by their path inside the module.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, TracebackType

from dataproc.module.reply import Raised

MESSAGE_LIMIT = 64 * 1024
TRACEBACK_LIMIT = 64 * 1024
FRAMES = 50
CHAIN = 8
GROUP = 8
_NOTE_LIMIT = 2 * 1024


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a module's own files are: below `root`; shown relative to `base`."""

    root: str
    base: str

    @classmethod
    def of(cls, root: str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> Origin:
        """The files below `root` (or `root` itself), shown relative to `base` (default: `root`)."""
        return cls(os.path.realpath(root), os.path.realpath(base if base is not None else root))

    def shown(self, filename: str) -> str | None:
        """The path to show for a file of the module; None for everybody else's."""
        if filename.startswith("<"):
            return None
        real = os.path.realpath(filename)
        if real != self.root and not real.startswith(self.root.rstrip(os.sep) + os.sep):
            return None
        return os.path.relpath(real, self.base)

    def place(self, code: CodeType) -> str:
        """`module.py:12`, for messages; never a path outside."""
        return f"{self.shown(code.co_filename) or os.path.basename(code.co_filename)}:{code.co_firstlineno}"


def raised(error: BaseException, origin: Origin) -> Raised:
    """The reply for an exception, whatever it is. Raises nothing."""
    return Raised(type_name(error), message_of(error), traceback_of(error, origin), _exit_code(error))


def type_name(value: object) -> str:
    """The name of a value's type, bounded, also where its metaclass lies."""
    return clipped(str(type.__dict__["__qualname__"].__get__(type(value))), 200)


def message_of(error: BaseException, limit: int = MESSAGE_LIMIT) -> str:
    """`str(error)`, bounded; a placeholder where that fails."""
    try:
        text = str.__str__(str(error))
        if isinstance(error, ImportError) and isinstance(error.path, str):  # where packages lie is nobody's business
            text = text.replace(error.path, os.path.basename(error.path))
        return clipped(text, limit)
    except BaseException:  # hostile or broken __str__, RecursionError included
        return f"<{type_name(error)} whose text cannot be shown>"


def traceback_of(error: BaseException, origin: Origin) -> str:
    """The traceback, causes and members of groups included, in Python's own form, of the module's frames alone."""
    try:
        return clipped("".join(_chain(error, origin)), TRACEBACK_LIMIT)
    except BaseException:
        return f"{type_name(error)}\n"


def clipped(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, with a note at the end where something was cut; lone surrogates escaped."""
    data = text[: limit + 1].encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    note = f" … ({len(text)} characters)"
    return data[: max(0, limit - len(note.encode()))].decode("utf-8", "ignore") + note


def _chain(error: BaseException, origin: Origin) -> Iterator[str]:
    """The links from the first cause to the error itself."""
    links, seen, link = [(error, "")], {id(error)}, error
    while len(links) < CHAIN:
        if link.__cause__ is not None:
            before, why = link.__cause__, "\nThe above exception was the direct cause of the following exception:\n\n"
        elif link.__context__ is not None and not link.__suppress_context__:
            before, why = link.__context__, "\nDuring handling of the above exception, another exception occurred:\n\n"
        else:
            break
        if id(before) in seen:
            break
        seen.add(id(before))
        links.append((before, why))
        link = before
    for index in range(len(links) - 1, -1, -1):
        yield from _one(links[index][0], origin, 0)
        if index:
            yield links[index][1]


def _one(error: BaseException, origin: Origin, depth: int) -> Iterator[str]:
    frames = _frames(error.__traceback__, origin)
    if frames:
        yield "Traceback (most recent call last):\n"
        yield from traceback.format_list(frames)
    text = message_of(error, _NOTE_LIMIT) if not isinstance(error, SyntaxError) else _syntax(error, origin)
    yield f"{type_name(error)}: {text}\n" if text else f"{type_name(error)}\n"
    if isinstance(error, BaseExceptionGroup) and depth < 3:
        for number, member in enumerate(error.exceptions[:GROUP], 1):
            inner = "".join(_one(member, origin, depth + 1))  # without causes: they would multiply
            yield f"  +-- {number} of {len(error.exceptions)}\n"
            yield "".join(f"  | {line}\n" for line in inner.splitlines())


def _frames(trace: TracebackType | None, origin: Origin) -> list[traceback.FrameSummary]:
    """The module's frames, innermost last; of more than `FRAMES` (a recursion), the outermost and innermost."""
    found: list[traceback.FrameSummary] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        if (shown := origin.shown(code.co_filename)) is not None:
            line = _line(code.co_filename, trace.tb_lineno)
            found.append(traceback.FrameSummary(shown, trace.tb_lineno, code.co_name, lookup_line=False, line=line))
        trace = trace.tb_next
    return found if len(found) <= FRAMES else found[: FRAMES // 2] + found[-FRAMES // 2 :]


def _line(filename: str, number: int) -> str:
    import linecache

    return clipped(linecache.getline(filename, number).strip(), 500)


def _syntax(error: SyntaxError, origin: Origin) -> str:
    """Where in the module's text the mistake is; `str()` of it would show only a file's name."""
    shown = origin.shown(error.filename) if isinstance(error.filename, str) else None
    where = f"{shown}, line {error.lineno}: " if shown else ""
    text = f"\n    {clipped(error.text.strip(), 500)}" if isinstance(error.text, str) else ""
    return f"{where}{clipped(str(error.msg), _NOTE_LIMIT)}{text}"


def _exit_code(error: BaseException) -> int | None:
    """As the interpreter would: None is 0, a number is itself, anything else is 1."""
    if not isinstance(error, SystemExit):
        return None
    code = error.code
    if code is None:
        return 0
    return int(code) & 0xFF if isinstance(code, int) else 1
