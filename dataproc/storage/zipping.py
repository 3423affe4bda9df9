"""A zip that is written in one go, to no file: sizes follow the data, and the directory waits in a temporary file.

Format: APPNOTE.TXT 6.3 (4.3 the records, 4.4.4 bit 3 for sizes that follow, bit 11 for UTF-8; 4.5.3 for zip64).
"""

from __future__ import annotations

import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from functools import cache
from types import TracebackType
from typing import Self

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
_WIDE = 45  # the version that knows zip64
_UNIX = 3 << 8
_FLAGS = 1 << 3 | 1 << 11
_MOST, _MOST_ENTRIES = 0xFFFFFFFF, 0xFFFF
_WIDE_FROM = 2**31  # sizes from here on are told in 8 bytes; deflate never doubles a size
_ZEROS = 2**24  # bytes that one prepared block stands for


class Zip:
    """Deflated entries, one after the other. What its methods give is to be sent on in that order."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._at = 0  # bytes given so far
        self._entries = 0
        self._directory = tempfile.SpooledTemporaryFile(2**20)  # noqa: SIM115 - closed with the zip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.close()

    def folder(self, name: str, modified: float) -> Iterator[bytes]:
        """An entry for an empty directory."""
        yield self.begin(f"{name}/", modified, 0, 0o40700)
        yield self.end()

    def begin(self, name: str, modified: float, size: int, mode: int) -> bytes:
        """Begin the entry of a file that has `size` bytes."""
        self._name, self._when, self._mode = _safe(name), _dos(modified), mode
        self._start, self._size, self._packed, self._crc = self._at, 0, 0, 0
        self._wide = size >= _WIDE_FROM
        self._deflate = zlib.compressobj(self._level, zlib.DEFLATED, -15)
        extra = struct.pack("<2H2Q", 1, 16, 0, 0) if self._wide else b""
        sizes = _MOST if self._wide else 0
        version = _WIDE if self._wide else 20
        head = _LOCAL.pack(
            b"PK\3\4", version, _FLAGS, 8, *self._when, 0, sizes, sizes, len(self._name), len(extra)
        )  # fmt: skip
        return self._given(head + self._name + extra)

    def add(self, data: bytes) -> bytes:
        """More of the file."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        return self._data(self._deflate.compress(data))

    def zeros(self, number: int) -> Iterator[bytes]:
        """So many zero bytes more, at the cost of their packed form."""
        if number >= _ZEROS:
            yield self._data(self._deflate.flush(zlib.Z_FULL_FLUSH))  # what follows refers to nothing before it
            for _ in range(number // _ZEROS):
                yield self._data(_block_of_zeros())
            whole = number - number % _ZEROS
            self._crc, self._size = crc_after_zeros(self._crc, whole), self._size + whole
        yield self.add(bytes(number % _ZEROS))

    def end(self) -> bytes:
        """The file is whole."""
        data = self._data(self._deflate.flush())
        sizes = struct.pack("<2Q" if self._wide else "<2I", self._packed, self._size)
        self._directory.write(self._record())
        self._entries += 1
        return data + self._given(b"PK\7\x08" + struct.pack("<I", self._crc) + sizes)

    def finish(self) -> Iterator[bytes]:
        """The directory."""
        start, size = self._at, self._directory.tell()
        self._directory.seek(0)
        while piece := self._directory.read(2**20):
            yield self._given(piece)
        if self._entries >= _MOST_ENTRIES or start + size >= _MOST:
            end64 = self._at
            counts = (self._entries, self._entries, size, start)
            yield _END64.pack(b"PK\6\6", 44, _UNIX | _WIDE, _WIDE, 0, 0, *counts)
            yield _LOCATOR.pack(b"PK\6\7", 0, end64, 1)
        entries = min(self._entries, _MOST_ENTRIES)
        yield _END.pack(b"PK\5\6", 0, 0, entries, entries, min(size, _MOST), min(start, _MOST), 0)

    def _record(self) -> bytes:
        far = self._wide or self._start >= _MOST
        extra = struct.pack("<2H3Q", 1, 24, self._size, self._packed, self._start) if far else b""
        sizes = (_MOST, _MOST) if far else (self._packed, self._size)
        version = _WIDE if far else 20
        return _CENTRAL.pack(
            b"PK\1\2", _UNIX | version, version, _FLAGS, 8, *self._when, self._crc, *sizes, len(self._name),
            len(extra), 0, 0, 0, (self._mode & 0o170777) << 16, _MOST if far else self._start,
        ) + self._name + extra  # fmt: skip

    def _data(self, packed: bytes) -> bytes:
        self._packed += len(packed)
        return self._given(packed)

    def _given(self, data: bytes) -> bytes:
        self._at += len(data)
        return data


def _safe(name: str) -> bytes:
    """The name as UTF-8; a backslash, which some readers take for a `/`, and what is no text are replaced."""
    return name.replace("\\", "_").encode("utf-8", "replace")


def _dos(moment: float) -> tuple[int, int]:
    year, month, day, hour, minute, second = time.gmtime(max(0.0, min(moment, 4e9)))[:6]
    if year < 1980:
        return 0, 1 << 5 | 1
    return hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day


@cache
def _block_of_zeros() -> bytes:
    """Deflated zeros that refer to nothing before them, and end at a byte's border."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(_ZEROS)) + packer.flush(zlib.Z_FULL_FLUSH)


def crc_after_zeros(crc: int, number: int) -> int:
    """The CRC-32 of some bytes, of which it was `crc`, and of `number` zeros after them, in logarithmic time.

    A zero bit changes the register linearly over GF(2); so does any number of them, by a power of that matrix.
    """
    register = crc ^ _MOST
    step = [0xEDB88320, *(1 << bit for bit in range(31))]  # what a zero bit makes of each bit of the register
    for _ in range(3):
        step = [_times(step, column) for column in step]
    while number:
        if number & 1:
            register = _times(step, register)
        step = [_times(step, column) for column in step]
        number >>= 1
    return register ^ _MOST


def _times(matrix: list[int], vector: int) -> int:
    product = 0
    for column in matrix:
        if vector & 1:
            product ^= column
        vector >>= 1
    return product
