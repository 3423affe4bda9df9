"""What a caller may do, as words: their grammar, and the two questions asked of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dataproc.errors import Forbidden, InvalidParams
from dataproc.types import Principal

EXEC = "dataproc.exec"
ADMIN = "admin"
ALL_SCOPES = frozenset(
    {
        "session.open",
        "session.manage",
        EXEC,
        "files.read",
        "files.write",
        "catalogue.read",
        "catalogue.write",
        ADMIN,
    }
)
DEFAULT_SCOPES = ALL_SCOPES - {ADMIN}
GATEWAY_SCOPES = frozenset({EXEC, "files.read", "files.write"})

# a canonical module name has no dot, so the first one ends it
_EXEC_OF = re.compile(r"dataproc\.exec:[a-z0-9][a-z0-9-]*(\.[^\s,:]+)?")


def require(principal: Principal, scope: str) -> None:
    """Raises Forbidden, naming the scope, unless the caller has it."""
    if scope not in principal.scopes:
        raise Forbidden(f"the credentials lack the scope {scope}", scope=scope)


def may_exec(principal: Principal, module: str, method: str) -> bool:
    """Whether the caller may run that method; `module` is the canonical name."""
    scopes = principal.scopes
    return EXEC in scopes or f"{EXEC}:{module}" in scopes or f"{EXEC}:{module}.{method}" in scopes


def require_exec(principal: Principal, module: str, method: str) -> None:
    """Raises Forbidden, naming the narrowest scope that would do, unless `may_exec`."""
    if not may_exec(principal, module, method):
        scope = f"{EXEC}:{module}.{method}"
        raise Forbidden(f"the credentials lack the scope {scope}", scope=scope)


def require_some_exec(principal: Principal) -> None:
    """Raises Forbidden unless the caller may run something, and so look at runs."""
    if not any(scope.partition(":")[0] == EXEC for scope in principal.scopes):
        raise Forbidden(f"the credentials lack the scope {EXEC}", scope=EXEC)


def parse_scopes(words: Iterable[str], field: str) -> frozenset[str]:
    """The scopes that `words` name. Raises InvalidParams, naming `field`, for an empty set or a word that is none."""
    given = list(words)
    errors = [
        {"loc": [field, place], "msg": _what_is_wrong(word), "type": "scope"}
        for place, word in enumerate(given)
        if word not in ALL_SCOPES and not _EXEC_OF.fullmatch(word)
    ]
    if not given:
        errors = [{"loc": [field], "msg": "must not be empty", "type": "scope"}]
    if errors:
        raise InvalidParams("; ".join(f"{field}: {error['msg']}" for error in errors), errors=errors)
    return frozenset(given)


def narrowed(words: Iterable[str] | None, grants: frozenset[str], field: str) -> frozenset[str]:
    """The scopes that a token is to have: all of `grants`, or those that are named.

    Raises InvalidParams as `parse_scopes`, Forbidden for one that the grants do not hold.
    """
    if words is None:
        return grants
    wanted = parse_scopes(words, field)
    for scope in sorted(wanted):
        if not _within(scope, grants):
            raise Forbidden(f"{field}: the credentials cannot give the scope {scope}", scope=scope)
    return wanted


def _within(scope: str, grants: frozenset[str]) -> bool:
    """Whether the grants hold a scope: itself, or one that it is a part of."""
    kind, _, target = scope.partition(":")
    return scope in grants or (bool(target) and (kind in grants or f"{kind}:{target.partition('.')[0]}" in grants))


def _what_is_wrong(word: str) -> str:
    if word.startswith(f"{EXEC}:"):
        return f"{word!r} names no module: lower case, `-` for `_`, as in dataproc.exec:my-module.method"
    return f"{word!r} is no scope; there are {', '.join(sorted(ALL_SCOPES))}, and dataproc.exec:<module>[.<method>]"


def join(scopes: Iterable[str]) -> str:
    """Scopes as one text, sorted, separated by spaces."""
    return " ".join(sorted(scopes))


def split(text: str) -> frozenset[str]:
    """The scopes of such a text."""
    return frozenset(text.split())
