"""Promise: a run cannot change the code that it, or anybody after it, is made of."""

from __future__ import annotations

from pathlib import Path


def test_neither_module_nor_library_can_be_changed(session, server):
    """Its own file, the standard library and the author's API stay as they are, and nothing is put beside them."""
    before = (server.modules / "prober/module.py").read_bytes()
    told = session.exec("prober.own_code")
    assert "worked" not in told.values(), told
    assert (server.modules / "prober/module.py").read_bytes() == before


def test_the_servers_copy_cannot_be_reached(session, server):
    """Neither the modules folder nor the server's copies of it have a name in there."""
    for path in (server.modules, server.storage / ".node", server.modules / "prober/module.py"):
        assert session.exec("prober.write", path=str(path / "x")) != "worked"
        assert session.exec("prober.listing", path=str(path)) == []


def test_a_file_of_the_session_is_not_imported(session, server):
    """A file that is named like a library, in the session or work directory, does not take its place."""
    for name in ("json.py", "encodings.py", "sitecustomize.py", "duckdb.py"):
        assert session.exec("prober.write", path=f"/session/{name}", text="raise SystemExit(9)") == "worked"
    told = session.exec("importer.subprocesses")
    assert told[1] == "42"
    assert Path(session.files / "json.py").exists()
