"""One address and one spelling for each request, before it is routed.

Clients of different generations write the path in different cases, leave the service out, and send parameters as
headers or without the encoding that a query within a query needs.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlencode

from starlette.types import Scope

BASE = "/cra/ServiceGateway/Services"
_BASE = re.compile(r"/cra/servicegateway/services(?=/|$)", re.IGNORECASE)
_WORDS = ("Logon", "Logoff", "keepalive", "products", "getView", "getData")
_BELOW = {2: ("views", "systems"), 4: ("definition", "data")}  # counted from `products`
_PARAMETERS = (
    "startRow", "numRows", "sort", "filter", "refresh", "close", "session", "context", "server", "system", "scope",
    "period", "product", "view",
)  # fmt: skip
_NAMES = {name.lower(): name for name in _PARAMETERS} | {"sessionid": "session"}
_SORT = re.compile(r"\w+\.[AaDd]")


def canonical(scope: Scope, service: str) -> Scope:
    """The scope as our routes know it; any other request's as it is."""
    found = _BASE.match(scope["path"])
    if found is None:
        return scope
    query = _query(scope)
    names = [name for name in scope["path"][found.end() :].split("/") if name]
    if not names and (scope["method"] == "DELETE" or any(name == "close" for name, _ in query)):
        names = [service]
    path = "/".join([BASE, *_spelled(names, service)])
    return {**scope, "path": path, "raw_path": quote(path).encode(), "query_string": urlencode(query).encode()}


def _spelled(names: list[str], service: str) -> list[str]:
    words = {word.lower(): word for word in _WORDS} | {"login": "Logon"}
    if names and names[0].lower() in words:
        names = [service, *names]
    spelled = [service if names[:1] and names[0].lower() == service.lower() else name for name in names[:1]]
    spelled += [words.get(name.lower(), name) for name in names[1:2]]
    for place, name in enumerate(names[2:], start=1):
        below = {word.lower(): word for word in _BELOW.get(place, ())}
        spelled.append(below.get(name.lower(), name))
    return spelled


def _query(scope: Scope) -> list[tuple[str, str]]:
    """The parameters: names spelled as in the documentation, those of headers too, `sort` and `filter` whole."""
    given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    said: dict[str, list[str]] = {}
    found: list[tuple[str, str]] = []
    for name, value in given:
        known = _NAMES.get(name.lower())
        if known is not None and not value:
            continue
        if known is None and not value and "sort" in said and _SORT.fullmatch(name):
            said["sort"].append(name)  # `sort=A.D&B.A`, not encoded
        elif known is None:
            found.append((name, value))
        else:
            said.setdefault(known, []).append(value)
    for raw, content in scope["headers"]:
        known = _NAMES.get(raw.decode("latin-1").lower())
        if known == "session" and content:
            said[known] = [content.decode("latin-1")]
        elif known is not None and content and known not in {_NAMES.get(name.lower()) for name, _ in given}:
            said.setdefault(known, []).append(content.decode("latin-1"))
    return [
        (name, "&".join(values) if name in ("sort", "filter") else values[-1]) for name, values in said.items()
    ] + found
