"""The index of a session, and the globs of listings."""

from __future__ import annotations

import pytest

from dataproc.errors import InvalidParams
from dataproc.storage.listing import Pattern
from dataproc.storage.object_store.index import Index, Kept, KeptFile, KeptFolder, KeptLink


def test_an_index_survives_its_json() -> None:
    """Every kind of entry, and names that are no text, come back equal."""
    entries: dict[str, Kept] = {
        "files/d": KeptFolder(0o700),
        "files/\udcff": KeptFile("k", 1, 0o600, 10**18),
        "files/l": KeptLink("\udcfe/x"),
    }
    index = Index("3", dict(entries), "3")
    assert Index.loads(index.dumps()) == index
    assert index.keys() == {"k"}


def test_a_large_index_is_told_by_what_has_changed() -> None:
    """Until a share of it has changed; with the index that it differs from it comes back equal, alone it is refused."""
    whole = Index("1", {f"files/{number}": KeptFile(f"1/{number}", 1, 0o600, 1) for number in range(2000)}, "1")
    entries = dict(whole.entries)
    entries["files/5"] = KeptFile("2/0", 2, 0o600, 2)
    del entries["files/6"]
    second = whole.followed("2", entries, {"files/5", "files/6"})
    assert len(second.dumps()) < 500
    assert Index.loads(second.dumps(), {"1": whole.dumps()}.__getitem__) == second
    with pytest.raises(ValueError, match="not whole"):
        Index.loads(second.dumps())
    again = {**entries, "files/6": KeptFile("3/0", 3, 0o600, 3)}
    third = second.followed("3", again, {"files/6"})
    assert Index.loads(third.dumps(), {"1": whole.dumps()}.__getitem__) == third
    assert third.followed("4", again, {f"files/{number}" for number in range(600)}).base == "4"


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "d/a.csv", True),
        ("*.csv", "a.csv2", False),
        ("d/*.csv", "d/a.csv", True),
        ("d/*.csv", "d/e/a.csv", False),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "d/e/a.csv", True),
        ("d/**", "d/e/f", True),
        ("d/**/f", "d/f", True),
        ("d/**/f", "d/e/e/f", True),
        ("d/**/f", "d/e/e/g", False),
        ("**", "d/e", True),
        ("[ab]?", "bx", True),
        ("[ab]?", "cx", False),
    ],
)
def test_globs(glob: str, path: str, matches: bool) -> None:
    """Without a slash the name is matched, with one the whole path; `**` is any number of directories."""
    assert Pattern(glob).matches(tuple(path.split("/"))) is matches


@pytest.mark.timeout(10)
def test_no_glob_takes_long() -> None:
    """Patterns that make a backtracking matcher explode are answered at once."""
    assert not Pattern("*a" * 120 + "b").matches(("a" * 255,))
    assert not Pattern("/".join(["**", "a"] * 50) + "/b").matches(("a",) * 1000)
    with pytest.raises(InvalidParams):
        Pattern("*" * 257)
