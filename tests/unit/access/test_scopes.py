"""The grammar of scopes, and what they allow."""

from __future__ import annotations

import pytest

from dataproc.access.scopes import ALL_SCOPES, DEFAULT_SCOPES, may_exec, parse_scopes, require, require_exec
from dataproc.errors import Forbidden, InvalidParams
from dataproc.types import Principal


def _caller(*scopes: str) -> Principal:
    return Principal("k", "key", frozenset(scopes))


def test_the_default_is_all_but_admin() -> None:
    """A key that names no scopes administers nothing."""
    lacking = ALL_SCOPES - DEFAULT_SCOPES
    assert lacking == {"admin"}


@pytest.mark.parametrize(
    "word",
    [
        "session.open",
        "dataproc.exec",
        "dataproc.exec:test-module",
        "dataproc.exec:test-module.session-test",
        "dataproc.exec:m.a.dotted.method",
    ],
)
def test_scopes_that_there_are(word: str) -> None:
    """A module, and a method of it, can be named."""
    assert parse_scopes([word], "scopes") == {word}


@pytest.mark.parametrize(
    "word",
    [
        "",
        "exec",
        "dataproc.exec:",
        "dataproc.exec:Test",
        "dataproc.exec:test_module",
        "dataproc.exec:m.",
        "dataproc.exec:m.a b",
        "dataproc.exec:m.a,admin",
        "dataproc.exec:m\n",
        "files.*",
        "admin ",
    ],
)
def test_words_that_are_no_scopes(word: str) -> None:
    """What is misspelt is refused, with the field and the place of the word."""
    with pytest.raises(InvalidParams) as refused:
        parse_scopes(["files.read", word], "grants")
    assert refused.value.data["errors"][0]["loc"] == ["grants", 1]


def test_no_scopes_at_all_are_refused() -> None:
    """A key that may do nothing is a mistake."""
    with pytest.raises(InvalidParams):
        parse_scopes([], "scopes")


def test_the_first_dot_ends_the_modules_name() -> None:
    """A scope for a method is for that method of that module alone."""
    caller = _caller("dataproc.exec:m.a")
    assert may_exec(caller, "m", "a")
    assert not may_exec(caller, "m", "b")
    assert not may_exec(caller, "m", "a.b")
    assert not may_exec(caller, "m-a", "a")


def test_a_scope_for_a_module_is_for_all_its_methods() -> None:
    """And for no other module."""
    caller = _caller("dataproc.exec:m")
    assert may_exec(caller, "m", "a.b")
    assert not may_exec(caller, "n", "a")


def test_admin_runs_nothing() -> None:
    """Scopes do not imply each other."""
    assert not may_exec(_caller("admin"), "m", "a")


def test_what_is_lacking_is_named() -> None:
    """The error says which scope to ask for."""
    with pytest.raises(Forbidden) as refused:
        require(_caller("files.read"), "files.write")
    assert refused.value.data == {"scope": "files.write"}
    with pytest.raises(Forbidden) as refused:
        require_exec(_caller("files.read"), "m", "a")
    assert refused.value.data == {"scope": "dataproc.exec:m.a"}
