"""What a request says about its caller, taken from its headers and believed by nobody yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dataproc import headers

_MEMBERS = {
    headers.API_KEY.lower().encode(): "api_key",
    headers.SECRET.lower().encode(): "secret",
    headers.SESSION_TOKEN.lower().encode(): "token",
    headers.GATEWAY_SECRET.lower().encode(): "gateway_secret",
    headers.SESSION_ID.lower().encode(): "session_id",
    headers.SCOPES.lower().encode(): "scopes",
    headers.KEY.lower().encode(): "key",
    b"authorization": "bearer",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credential headers of one request, and the address of the socket it came by.

    peer: an IP address, or `unix:<uid>` with the uid of the process at the other end of a unix socket; None where it is
    not known. Nothing of the rest is shown by `repr`.
    """

    api_key: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    gateway_secret: str | None = field(default=None, repr=False)
    session_id: str | None = field(default=None, repr=False)
    scopes: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    peer: str | None = None

    @property
    def guess(self) -> bool:
        """Whether there is anything in it that could be right."""
        return self.token is not None or self.gateway_secret is not None or None not in (self.api_key, self.secret)

    @classmethod
    def from_headers(cls, raw: Iterable[tuple[bytes, bytes]], peer: str | None = None) -> Credentials:
        """Those of raw ASGI headers; names are matched in any case.

        A header that is sent twice becomes one value joined by `, `, as HTTP has it: that is no credential and no id,
        so a client cannot slip its own value in beside the one that a proxy adds.
        """
        found: dict[str, str] = {}
        for name, value in raw:
            member = _MEMBERS.get(name) or _MEMBERS.get(name.lower())
            if member is not None:
                text = value.decode("latin-1").strip()
                found[member] = f"{found[member]}, {text}" if member in found else text
        bearer = _bearer(found.pop("bearer", None))
        if bearer is not None:
            found.setdefault("token", bearer)
        return cls(**found, peer=peer)


def _bearer(authorization: str | None) -> str | None:
    """The token of `Authorization: Bearer`; other schemes are not ours."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
