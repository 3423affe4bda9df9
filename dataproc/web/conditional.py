"""Conditions, ranges and digests of HTTP, read from headers. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from dataproc.errors import InvalidParams
from dataproc.storage.files import Absent, Condition, Entry, Matches

_TAG = re.compile(r'(W/)?("[^"]*")')
_RANGE = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII | re.IGNORECASE)
_WANTED = re.compile(r"(?:^|,)\s*sha-256\s*=\s*(\d+)")
_SHA256 = re.compile(r"(?:^|,)\s*sha-256\s*=\s*(?::([^:]*):)?", re.IGNORECASE)


class RangeNotSatisfiable(InvalidParams):
    """The range begins behind the end of the file."""

    http_status = 416


def combined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by name; one that came in several lines is one list (RFC 9110, 5.3)."""
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def last_modified(entry: Entry) -> str:
    """The `Last-Modified` of a file, in whole seconds."""
    return format_datetime(datetime.fromtimestamp(entry.modified // 10**9, UTC), usegmt=True)


def write_condition(headers: Mapping[str, str]) -> Condition:
    """What `If-Match` and `If-None-Match: *` demand of the file that is to be written or deleted."""
    if (sent := headers.get("if-match")) is not None:
        # W/ is cut off to a tag of its own kind: a weak tag never matches here
        tags = frozenset(f"{weak}{tag}" for weak, tag in _TAG.findall(sent))
        if not tags and sent.strip() != "*":
            raise InvalidParams.field("If-Match", "is neither * nor a list of ETags")
        return Matches(tags)
    if (sent := headers.get("if-none-match")) is not None:
        if sent.strip() != "*":
            raise InvalidParams.field("If-None-Match", "is * or nothing where a file is written")
        return Absent()
    return None


def not_modified(headers: Mapping[str, str], entry: Entry) -> bool:
    """Whether the reader has this very file already: `If-None-Match`, or without it `If-Modified-Since`."""
    if (sent := headers.get("if-none-match")) is not None:
        return sent.strip() == "*" or any(tag == entry.etag for _, tag in _TAG.findall(sent))
    since = _date(headers.get("if-modified-since"))
    return since is not None and entry.modified // 10**9 <= since.timestamp()


def byte_range(headers: Mapping[str, str], entry: Entry) -> range | None:
    """The bytes that are asked for; None for the whole file, also where `If-Range` names another one.

    Several ranges in one request are answered with the whole file. Raises RangeNotSatisfiable.
    """
    asked = _RANGE.fullmatch(headers.get("range", ""))
    if asked is None or not _same(headers.get("if-range"), entry):
        return None
    first, last = (int(text[:19]) if text else None for text in asked.groups())
    if first is None and last is None:
        return None
    if first is None:
        found = range(max(0, entry.size - (last or 0)), entry.size)
    elif last is not None and last < first:
        return None
    else:
        found = range(first, entry.size if last is None else min(last + 1, entry.size))
    if not found:
        raise RangeNotSatisfiable.field("Range", f"names no byte of a file of {entry.size} bytes")
    return found


def sent_sha256(headers: Mapping[str, str]) -> bytes | None:
    """The SHA-256 of `Content-Digest` (RFC 9530); None where it is not sent. Raises InvalidParams."""
    found = list(_SHA256.finditer(headers.get("content-digest", "")))
    if not found:
        return None
    try:
        digest = base64.b64decode(found[-1][1] or "", validate=True)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise InvalidParams.field("Content-Digest", "holds no SHA-256 in the form sha-256=:<base64>:")
    return digest


def wants_sha256(headers: Mapping[str, str]) -> bool:
    """Whether `Want-Repr-Digest` (RFC 9530) asks for the file's SHA-256; a preference of 0 says no."""
    found = _WANTED.search(headers.get("want-repr-digest", ""))
    return found is not None and found[1] != "0"


def repr_digest(sha256: bytes) -> str:
    """The value of `Repr-Digest`."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def _same(if_range: str | None, entry: Entry) -> bool:
    return if_range is None or if_range.strip() in (entry.etag, last_modified(entry))


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except (ValueError, OverflowError):
        return None
