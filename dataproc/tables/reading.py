"""JSON text to rows, one at a time: a large result is never whole in memory, and what it holds is hostile."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any, NoReturn

from dataproc.tables.build import NotATableError

CHUNK = 2**20  # bytes read at once
LONGEST_ROW = 64 * 2**20  # characters: a row that is not whole by then is read no further


def _refuse_constant(word: str) -> NoReturn:
    raise NotATableError(f"{word} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def rows_of(source: IO[bytes]) -> Iterator[Any]:
    """The elements of the JSON array in a file. Raises NotATableError where it holds none."""
    text = _Text(source)
    if text.next_sign() != "[":
        raise NotATableError("it is no array of rows")
    text.skip()
    if text.next_sign() == "]":
        return
    while True:
        yield text.value()
        sign = text.next_sign()
        text.skip()
        if sign == "]":
            return
        if sign != ",":
            raise NotATableError("its JSON is broken")


class _Text:
    """What was read of the source and not yet used."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")
        self._text, self._at = "", 0

    def next_sign(self) -> str:
        """The next character that is no white space, not yet used."""
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in " \t\r\n":
                at += 1
            self._at = at
            if at < len(text):
                return text[at]
            if not self._more():
                raise NotATableError("its JSON ends too early")

    def skip(self) -> None:
        """Use one character."""
        self._at += 1

    def value(self) -> Any:
        """The next value."""
        if self.next_sign() != "{":  # also because a number could go on in the next chunk
            raise NotATableError("a row is no object")
        while True:
            try:
                value, self._at = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > LONGEST_ROW or not self._more():
                    raise NotATableError("its JSON is broken, or a row is too long") from error
            except (ValueError, RecursionError) as error:
                raise NotATableError("a value is too deep, or a number too long") from error
            else:
                return value

    def _more(self) -> bool:
        data = self._source.read(max(CHUNK, len(self._text) - self._at))  # doubles for a long row
        self._text = self._text[self._at :] + self._decode.decode(data, final=not data)
        self._at = 0
        return bool(data)
