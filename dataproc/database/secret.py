"""Random values that give access, and what of them is kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid


def new_secret() -> str:
    """256 random bits, as text that fits into a header."""
    return secrets.token_urlsafe(32)


def new_uuid() -> str:
    """A random UUID: 122 random bits from the system's generator."""
    return str(uuid.uuid4())


def digest(secret: str) -> bytes:
    """What is kept of a secret or token.

    They are random and long, so one round of SHA-256 is as hard to invert as they are to guess; the slow functions that
    passwords need would only slow calls down.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def same(one: bytes, other: bytes) -> bool:
    """Whether two digests are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one, other)
