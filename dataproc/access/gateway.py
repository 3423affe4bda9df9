"""The back-end role: which peers are believed, and what they say."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from dataproc.access.credentials import Credentials
from dataproc.access.scopes import GATEWAY_SCOPES, parse_scopes
from dataproc.database.secret import digest, same
from dataproc.errors import InvalidParams, Unauthorized
from dataproc.settings import UNIX_PEER, Settings, words_of
from dataproc.types import GATEWAY_PREFIX, SESSION_ID, Principal

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class Gateways:
    """Tells trusted peers from others, and makes principals of what the trusted ones say."""

    def __init__(self, settings: Settings) -> None:
        secret = settings.gateway_secret
        self._secret = digest(secret.get_secret_value()) if secret and secret.get_secret_value() else None
        self._networks, self._uids = _peers(settings.gateway_peers)

    def trusts(self, credentials: Credentials) -> bool:
        """Whether the request comes from a trusted peer: by its secret, or by the address of its socket."""
        given = credentials.gateway_secret
        if given is not None and self._secret is not None and same(digest(given), self._secret):
            return True
        return credentials.peer is not None and self._knows(credentials.peer)

    def _knows(self, peer: str) -> bool:
        if peer.startswith("unix:"):
            return peer in self._uids
        if not self._networks:
            return False
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # how a socket for both families shows an IPv4 peer
        return any(address in network for network in self._networks)

    def principal(self, credentials: Credentials) -> Principal:
        """Who calls, in a trusted peer's words. Raises Unauthorized for an id, key or scopes that are none."""
        session_id = GATEWAY_PREFIX + _id(credentials.session_id or "")
        key = session_id if credentials.key is None else _key(credentials.key)
        scopes = GATEWAY_SCOPES if credentials.scopes is None else _scopes(credentials.scopes)
        return Principal(key, "gateway", scopes, scopes, session_id)


def _peers(text: str) -> tuple[tuple[IPv4Network | IPv6Network, ...], frozenset[str]]:
    """Networks, and uids as `unix:<uid>`: `unix` stands for the server's own and root."""
    networks: list[IPv4Network | IPv6Network] = []
    uids: set[str] = set()
    for word in words_of(text):
        if word == "unix":
            uids |= {f"unix:{os.getuid()}", "unix:0"}
        elif UNIX_PEER.fullmatch(word):
            uids.add(word)
        else:
            networks.append(ip_network(word))
    return tuple(networks), frozenset(uids)


def _id(value: str) -> str:
    if SESSION_ID.fullmatch(value):
        return value
    raise Unauthorized(
        "Xdata-Session-Id must be 8 to 128 letters, digits, `-` and `_`, and begin with a letter or digit",
        reason="invalid",
    )


def _key(value: str) -> str:
    # it names a folder, which must not be the one shared by all keys; without a dot it is no session's either
    if _KEY.fullmatch(value) and value != "shared":
        return value
    raise Unauthorized(
        "Xdata-Key must be at most 128 letters, digits, `-` and `_`, and begin with a letter or digit; "
        "`shared` is taken",
        reason="invalid",
    )


def _scopes(text: str) -> frozenset[str]:
    """Scopes between spaces or commas; none at all is a caller that may do nothing."""
    words = text.replace(",", " ").split()
    try:
        return parse_scopes(words, "Xdata-Scopes") if words else frozenset()
    except InvalidParams as error:
        raise Unauthorized(error.message, reason="invalid") from None
