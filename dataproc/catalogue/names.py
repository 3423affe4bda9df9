"""Names of the catalogue: `ddc:<name>` is the newest version, `ddc:<name>_<seconds>.<microseconds>` one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dataproc.errors import InvalidParams

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_LONG = re.compile(r"(.+)_(\d{9,11})\.(\d{6})")
PREFIX = "ddc:"


@dataclass(frozen=True, slots=True)
class Ddc:
    """A name that was read. version: microseconds since 1970 of the version that a long form names."""

    name: str
    version: int | None = None


def read_ddc(text: object, *where: str | int) -> Ddc:
    """The name that `text` writes, short or long, with or without `ddc:`. Raises InvalidParams at `where`."""
    name = text.removeprefix(PREFIX) if isinstance(text, str) else None
    if name is None or not _NAME.fullmatch(name):
        raise InvalidParams.field(
            list(where), "is no name of the catalogue: 1 to 100 letters, digits, '_', '-' and '.'", "ddc"
        )
    if (long := _LONG.fullmatch(name)) is not None:
        return Ddc(long[1], int(long[2]) * 1_000_000 + int(long[3]))
    return Ddc(name)


def new_name(text: object, *where: str | int) -> str:
    """The name of something new: a short form. Raises InvalidParams."""
    found = read_ddc(text, *where)
    if found.version is not None:
        raise InvalidParams.field(list(where), "ends like the long form of a version; choose another name", "ddc")
    return found.name


def long_form(name: str, version: int) -> str:
    """`my_dataset_1752026764.296948`."""
    return f"{name}_{version // 1_000_000}.{version % 1_000_000:06d}"
