"""Pages of a directory, whichever way they are found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dataproc.storage.files import Files
from dataproc.storage.folders import Folders
from dataproc.storage.listing import MANY_PAGES, Selection, list_folder
from dataproc.storage.paths import read_path


@pytest.mark.parametrize("limit", [1, 2, 7, 300])
def test_pages_join_to_the_whole(tmp_path: Path, limit: int) -> None:
    """Every name once, in order, however many pages there are; those that no client can name are passed over."""
    folders = Folders(tmp_path, None, False)
    tree = folders.make("0f7b1f5e-0000-4000-8000-000000000000")
    given = [f"{number * 37 % 101:03}.txt" for number in range(101)] + ["ä", "Z", "a b", "line\nbreak"]
    for name in given:
        (tree.files / name).touch()
    for number in range(5):
        Path(os.fsdecode(os.fsencode(tree.files) + b"/0%d-\xff" % number)).touch()
    assert len(given) > MANY_PAGES * 3, "some pages are looked for, others sorted"
    seen: list[str] = []
    cursor: str | None = None
    while cursor is not None or not seen:
        page = list_folder(Files(folders, tree), read_path(""), Selection(limit=limit, cursor=cursor))
        assert len(page.entries) <= limit
        seen += [entry.path for entry in page.entries]
        cursor = page.cursor
    assert seen == sorted(given)
