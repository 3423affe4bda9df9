"""How a client's path is read."""

from __future__ import annotations

import errno
import os

import pytest

from dataproc.errors import DataprocError, InvalidParams, StorageUnavailable
from dataproc.storage.paths import RelPath, decode_path, read_path, told


@pytest.mark.parametrize(
    ("text", "names", "directory"),
    [
        ("", (), True),
        ("a", ("a",), False),
        ("a/b c/", ("a", "b c"), True),
        ("a\\b", ("a\\b",), False),
        ("..a/b..", ("..a", "b.."), False),
        ("C:/x", ("C:", "x"), False),
        ("ä/日本", ("ä", "日本"), False),
        ("x" * 255, ("x" * 255,), False),
    ],
)
def test_paths_that_are_taken(text: str, names: tuple[str, ...], directory: bool) -> None:
    """A path is names between slashes; a slash at its end means a directory."""
    assert read_path(text) == RelPath(names, directory)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("..", "'..'"),
        ("a/../b", "'..'"),
        ("a/..", "'..'"),
        ("../", "'..'"),
        ("/a", "absolute"),
        ("/", "absolute"),
        ("a//b", "empty name"),
        ("a//", "empty name"),
        ("./a", "'.'"),
        ("a\0b", "NUL"),
        ("x" * 256, "255"),
        ("ä" * 128, "255"),
        ("x/" * 2048, "4095"),
        ("x" * 10_000, "4095"),
        ("\ud800", "UTF-8"),
    ],
)
def test_paths_that_are_refused(text: str, why: str) -> None:
    """What is wrong is said; the path itself is not repeated."""
    with pytest.raises(InvalidParams, match=why) as refused:
        read_path(text)
    assert refused.value.data["errors"][0]["loc"] == ["path"]


def test_bytes_that_are_no_text_are_refused() -> None:
    """Bytes that are no UTF-8, or UTF-8 in a longer form than needed, are no path."""
    for raw in (b"\xff", b"a/\xc0\xae\xc0\xae/b", b"\xed\xa0\x80"):
        with pytest.raises(InvalidParams, match="UTF-8"):
            decode_path(raw)


def test_own_prefix() -> None:
    """Only the first name says that a path is dataproc's."""
    assert [read_path(text).own for text in (".dataproc", ".dataproc/x", "a/.dataproc", ".dataproc2")] == [
        True,
        True,
        False,
        False,
    ]


def test_no_error_tells_a_path() -> None:
    """Whatever the disk says, its path is not in what the caller is told."""
    for code in errno.errorcode:
        error = told(OSError(code, os.strerror(code), "/srv/storage/secret"))
        assert isinstance(error, DataprocError)
        assert "/srv" not in error.message + str(error.data)


def test_a_full_disk_is_told() -> None:
    """A full disk is the storage's fault, worth a retry, and is called that."""
    error = told(OSError(errno.ENOSPC, "x"))
    assert isinstance(error, StorageUnavailable)
    assert (error.retryable, error.data) == (True, {"reason": "disk_full"})
    assert "full" in error.message
