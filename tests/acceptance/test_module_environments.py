"""Modules with environments of their own, made by `dataproc module install`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.conftest import Shell, call, headers, until

USES_SIX = """
import six
from dataproc import Context, Module
module = Module("uses-six")

@module.method
def version(ctx: Context) -> str:
    "Which version of the library it got."
    return six.__version__
"""
UNREACHABLE = ("error sending request", "dns error", "Failed to fetch", "Could not connect", "timed out", "offline")


def a_module(shell: Shell, name: str, requirements: str) -> Path:
    """A module that says which version of a library it runs with."""
    folder = shell.folder / "modules" / name
    folder.mkdir(parents=True)
    (folder / "module.py").write_text(USES_SIX)
    (folder / "requirements.txt").write_text(requirements + "\n")
    return folder


@pytest.fixture
def author(tmp_path: Path) -> Shell:
    """The command, with two modules that need different versions of one library."""
    shell = Shell(tmp_path, {"DATAPROC_MODULES_DIR": "modules"})
    a_module(shell, "old", "six==1.15.0")
    folder = a_module(shell, "new", "")
    (folder / "requirements.txt").unlink()
    (folder / "pyproject.toml").write_text('[project]\nname = "new"\nversion = "1"\ndependencies = ["six==1.16.0"]\n')
    return shell


def install(shell: Shell, *paths: str) -> str:
    made = shell.run("module", "install", *paths)
    if made.returncode and any(sign in made.stdout for sign in UNREACHABLE):
        pytest.skip(f"SKIPPED LOUDLY: no package registry can be reached: {made.stdout[-300:]}")
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


def test_two_versions_of_a_library_side_by_side(author: Shell) -> None:
    """Both modules are broken with the remedy, are installed, and then run in one server, each on its own version."""
    import httpx

    rows = {row["name"]: row for row in json.loads(author.run("module", "list", "-o", "json").stdout)}
    assert rows["old"]["error"] == "its environment is missing: run `dataproc module install old`"
    key = author.key()
    with author.serve() as server, httpx.Client(base_url=server.url, headers=headers(key)) as client:

        def version(module: str) -> dict[str, str]:
            request = call("dataproc.exec", module=module, method="version")
            answer: dict[str, str] = client.post("/api/v1/dataproc/jsonrpc", json=request).json()
            return answer

        assert "dataproc module install old" in str(version("old")["error"])
        install(author, "old")
        install(author, "new")
        lock = (author.folder / "modules" / "old" / "requirements.lock").read_text()
        assert "six==1.15.0 \\\n    --hash=sha256:" in lock
        assert "://" not in lock
        assert [line.split("==")[0] for line in lock.splitlines() if line.startswith(("pydantic=", "fsspec="))]
        # the server sees the lock appear, and tries again
        assert until(lambda: version("old").get("result")) == "1.15.0"
        assert until(lambda: version("new").get("result")) == "1.16.0"


def test_what_cannot_be_built_is_told_and_leaves_the_others_working(author: Shell) -> None:
    """The builder's own words and exit code 1; a module beside it is installed and works; nothing half-made is left."""
    a_module(author, "impossible", "six==99.0")
    install(author, "old")
    failed = author.run("module", "install")
    assert failed.returncode == 1
    assert "impossible: FAILED" in failed.stdout
    assert "six==99.0" in failed.stdout
    rows = {row["name"]: row for row in json.loads(author.run("module", "list", "-o", "json").stdout)}
    assert {name: rows[name]["state"] for name in ("old", "new", "impossible")} == {
        "old": "ready", "new": "ready", "impossible": "broken",
    }  # fmt: skip
    environments = author.folder / "storage" / ".node" / "environments"
    assert len([path for path in environments.iterdir() if path.is_dir()]) == 2


def test_changed_requirements_ask_for_a_new_environment(author: Shell) -> None:
    """The lock of other requirements is not used: the module says what to do."""
    install(author, "old")
    (author.folder / "modules" / "old" / "requirements.txt").write_text("six==1.16.0\n")
    rows = {row["name"]: row for row in json.loads(author.run("module", "list", "-o", "json").stdout)}
    assert "dataproc module install old" in rows["old"]["error"]
