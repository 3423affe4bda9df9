"""Which of a column's distinct values a pattern matches.

`*` stands for any text, all else for itself. A number is matched by its value, or by its digits where there is a `*`;
null by the empty pattern.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from typing import Any

import numpy as np
import numpy.typing as npt

from dataproc.tables.table import Column

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
SAMPLE = 2**16  # bytes looked at to tell rare ones


def matching(column: Column, pattern: str) -> npt.NDArray[np.bool_]:
    """For each place whether its value matches."""
    found = np.zeros(column.count, bool)
    found[-1] = pattern in ("", "*")
    flags, numbers, texts = column.groups[:3]
    text_begin, text_end = flags + numbers, flags + numbers + texts
    if "*" not in pattern:
        found[_equal(column, text_begin, text_end, pattern)] = True
        _exact(column, pattern, found)
        return found
    parts = pattern.split("*")
    if len(parts) == 2 and not parts[1]:
        found[_prefixed(column, text_begin, text_end, parts[0])] = True
    else:
        _search(column, (text_begin, text_end), parts, found, '"')
    _search(column, (0, text_begin), parts, found)
    _search(column, (text_end, column.count - 1), parts, found)
    return found


def _exact(column: Column, pattern: str, found: npt.NDArray[np.bool_]) -> None:
    flags, numbers, texts = column.groups[:3]
    for place in range(flags):
        found[place] = column.value(place) == {"true": True, "false": False}.get(pattern.lower())
    number = _number(pattern)
    if number is not None:
        found[_equal(column, flags, flags + numbers, number)] = True
    _search(column, (flags + numbers + texts, column.count - 1), [pattern], found)


def _number(text: str) -> float | None:
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return int(text)
    except ValueError:  # a fraction, or too many digits
        return float(text)


def _equal(column: Column, begin: int, end: int, value: Any) -> slice:
    """Where in a sorted group a value stands."""
    first = bisect_left(range(end), value, lo=begin, key=column.value)
    return slice(first, bisect_right(range(end), value, lo=first, hi=end, key=column.value))


def _prefixed(column: Column, begin: int, end: int, prefix: str) -> slice:
    first = bisect_left(range(end), prefix, lo=begin, key=column.value)
    others = bisect_left(range(end), True, lo=first, key=lambda place: not column.value(place).startswith(prefix))
    return slice(first, others)


def _search(
    column: Column, places: tuple[int, int], parts: list[str], found: npt.NDArray[np.bool_], quote: str = ""
) -> None:
    """Mark the values that hold all parts, the first at the begin and the last at the end. quote: of values that are
    text, in whose JSON parts are sought as JSON, too.
    """
    begin, end = places
    if begin >= end or (not quote and "\n" in "".join(parts)):  # each value is a line
        return
    lines = b"\n" + column.lines(begin, end)
    starts = column.starts[begin : end + 1] - column.starts[begin] + np.uint64(1)
    literals = _literals(parts, quote)
    hits = np.ones(end - begin, bool)
    for literal in literals:
        hits &= _holding(lines, starts, literal)
    if len(literals) > 1 or (quote and b"\\" in lines):
        for place in np.flatnonzero(hits).tolist():
            line = lines[int(starts[place]) : int(starts[place + 1]) - 1]
            if len(literals) > 1 or b"\\" in line:  # a part may have been found in the middle of an escape
                hits[place] = _fits(json.loads(line) if quote else line.decode(), parts)
    found[begin:end] |= hits


def _literals(parts: list[str], quote: str) -> list[bytes]:
    """What a line has to hold, its ends as new lines."""
    written = [json.dumps(part, ensure_ascii=False)[1:-1] if quote else part for part in parts]
    if len(written) == 1:
        return [f"\n{quote}{written[0]}{quote}\n".encode("utf-8", "replace")]
    first, *middle, last = written
    ends = [f"\n{quote}{first}" if first else "", *middle, f"{last}{quote}\n" if last else ""]
    return [each.encode("utf-8", "replace") for each in ends if each]


def _holding(lines: bytes, starts: npt.NDArray[np.uint64], literal: bytes) -> npt.NDArray[np.bool_]:
    """Which lines hold a literal. By its rarest byte first: most others are never looked at."""
    signs = np.frombuffer(lines, np.uint8)
    order = sorted(range(len(literal)), key=lambda at: lines.count(literal[at : at + 1], 0, SAMPLE))
    spots = np.flatnonzero(signs[: max(0, len(signs) - len(literal) + 1) + order[0]] == literal[order[0]]) - order[0]
    spots = spots[spots >= 0]
    for at in order[1:]:
        spots = spots[signs[spots + at] == literal[at]]
    inside = spots + (literal[0] == ord("\n"))
    held = np.zeros(len(starts) - 1, bool)
    held[np.searchsorted(starts, inside.astype(np.uint64), "right") - 1] = True
    return held


def _fits(text: str, parts: list[str]) -> bool:
    if len(parts) == 1:
        return text == parts[0]
    first, *middle, last = parts
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        if (at := text.find(part, at, end)) < 0:
            return False
        at += len(part)
    return True
