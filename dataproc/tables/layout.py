"""The file of a table: a JSON head with the places of its parts, then the parts, as they lie in memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

SIZE = struct.Struct("<Q")
ALIGNED = 8


@dataclass(frozen=True, slots=True)
class Encoded:
    """A column to be written.

    groups: how many of the values are booleans, numbers, text, and arrays or objects, in this order; null is the last.
    codes: the place of each row's value. values: as JSON, in order.
    """

    name: str
    kind: str
    groups: tuple[int, ...]
    codes: npt.NDArray[np.uint32]
    values: Sequence[bytes]


def code_type(values: int) -> str:
    """The smallest type that holds the places of so many values."""
    return "<u1" if values <= 2**8 else "<u2" if values <= 2**16 else "<u4"


def write(target: Path, head: Mapping[str, Any], columns: Sequence[Encoded]) -> None:
    """The parts first, each at a multiple of eight, then the head and its size: nobody knows them before."""
    with target.open("xb") as file:
        told = []
        for column in columns:
            starts = np.zeros(len(column.values) + 1, "<u8")
            np.cumsum([len(value) + 1 for value in column.values], out=starts[1:])  # a line each
            told.append(
                {
                    "name": column.name,
                    "kind": column.kind,
                    "groups": list(column.groups),
                    "codes": _part(file, column.codes.astype(code_type(len(column.values))).tobytes()),
                    "starts": _part(file, starts.tobytes()),
                    "values": _part(file, b"\n".join(column.values) + b"\n"),
                }
            )
        written = json.dumps({**head, "columns": told}).encode()
        file.write(written)
        file.write(SIZE.pack(len(written)))


def _part(file: IO[bytes], data: bytes) -> list[int]:
    """Offset and size."""
    file.write(bytes(-file.tell() % ALIGNED))
    offset = file.tell()
    file.write(data)
    return [offset, len(data)]


def read_head(data: Any) -> dict[str, Any]:
    """The head of a file's bytes."""
    (size,) = SIZE.unpack(data[-SIZE.size :])
    head: dict[str, Any] = json.loads(bytes(data[-SIZE.size - size : -SIZE.size]))
    return head
