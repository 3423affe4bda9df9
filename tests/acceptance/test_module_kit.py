"""The author's kit as an author uses it: from nothing to a tested module, by commands alone."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import DATAPROC, Served, Shell, until

CLUELESS = """
from typing import Any
from dataproc import Context, Module
module = Module("clueless")

@module.method
def guess(ctx: Context, anything, rows: list, either: int | float = 1, told: dict[str, int] | None = None) -> int:
    "Guess."
    return 1
"""


@pytest.fixture
def author(tmp_path: Path) -> Shell:
    """The command, with an empty modules folder."""
    (tmp_path / "modules").mkdir()
    return Shell(tmp_path, {"DATAPROC_MODULES_DIR": "modules"})


def the_new_one(author: Shell) -> Path:
    made = author.run("module", "new", "word-counts")
    assert made.returncode == 0, made.stderr
    return author.folder / "modules" / "word-counts"


def test_a_new_module_passes_its_test_and_its_check_at_once(author: Shell) -> None:
    """`module new`, then pytest, then `module check`, with nothing written in between."""
    folder = the_new_one(author)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} >= {"module.py", "README.md"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "modules/word-counts"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    tried = subprocess.run(command, cwd=author.folder, capture_output=True, text=True, check=False, env=author.env)
    assert tried.returncode == 0, tried.stdout
    assert "2 passed" in tried.stdout
    checked = author.run("module", "check", "word-counts", "-o", "json")
    report = json.loads(checked.stdout)
    assert (checked.returncode, report["ok"], report["problems"], report["notes"]) == (0, True, [], [])
    assert report["methods"][0]["params"]["properties"]["name"]["examples"] == ["Ada"]
    assert report["methods"][0]["result"]["required"] == ["file", "lines"]


def test_a_new_module_of_scripts_passes_its_test_too(author: Shell) -> None:
    """`module new --script`: a definition, a script, and a test that stores what the script leaves."""
    made = author.run("module", "new", "--script", "greeter")
    assert made.returncode == 0, made.stderr
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "modules/greeter"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    tried = subprocess.run(command, cwd=author.folder, capture_output=True, text=True, check=False, env=author.env)
    assert tried.returncode == 0, tried.stdout
    checked = author.run("module", "check", "greeter")
    assert checked.returncode == 0, checked.stdout


def test_names_that_will_not_do_are_refused(author: Shell) -> None:
    """Nothing is written over, and a name that no module can have is told so."""
    folder = the_new_one(author)
    before = (folder / "module.py").read_text()
    again, wrong = author.run("module", "new", "word-counts"), author.run("module", "new", "Word.Counts")
    assert (again.returncode, wrong.returncode) == (2, 2)
    assert "is there already" in again.stderr
    assert "is no name for a module" in wrong.stderr
    assert (folder / "module.py").read_text() == before


def test_check_names_each_ambiguous_type_and_why(author: Shell) -> None:
    """A param without a type, a list of anything, a union whose members overlap; a clear one is not named."""
    folder = author.folder / "modules" / "clueless"
    folder.mkdir()
    (folder / "module.py").write_text(CLUELESS)
    checked = author.run("module", "check", str(folder), "-o", "json")
    report = json.loads(checked.stdout)
    assert (checked.returncode, report["ok"]) == (1, False)
    told = "\n".join(report["problems"])
    assert "param 'anything': any JSON is taken" in told
    assert "param 'rows': items of a list without a type" in told
    assert "param 'either': a value can be integer and number" in told
    assert "'told'" not in told


def test_check_shows_why_a_module_cannot_be_imported(author: Shell) -> None:
    """The author's own frame and line; exit code 1."""
    folder = the_new_one(author)
    (folder / "module.py").write_text("import nothing_of_that_name\n")
    checked = author.run("module", "check", "word-counts")
    assert checked.returncode == 1
    assert "ModuleNotFoundError" in checked.stdout
    assert "line 1" in checked.stdout


def test_modules_are_listed_and_described_without_a_server(author: Shell) -> None:
    """A broken one is listed with its error, beside those that work."""
    the_new_one(author)
    (author.folder / "modules" / "bad").mkdir()
    (author.folder / "modules" / "bad" / "module.py").write_text("module = 1\n")
    rows = {row["name"]: row for row in json.loads(author.run("module", "list", "-o", "json").stdout)}
    assert (rows["word-counts"]["state"], rows["bad"]["state"]) == ("ready", "broken")
    assert "is no dataproc.Module" in rows["bad"]["error"]
    told = json.loads(author.run("module", "describe", "word_counts", "-o", "json").stdout)
    assert [method["name"] for method in told["methods"]] == ["greet"]
    nothing = author.run("module", "describe", "nothing")
    assert (nothing.returncode, "no module 'nothing'" in nothing.stderr) == (3, True)


def test_dev_serves_a_module_and_its_changes(author: Shell) -> None:
    """What it prints to export makes `dataproc exec` work; a changed file is told, and is what runs next."""
    folder = the_new_one(author)
    command = [DATAPROC, "module", "dev", "word-counts"]
    log = author.folder / "dev.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, env=author.env, cwd=author.folder, stdout=subprocess.PIPE, stderr=stderr)
    served = Served(process, log)
    try:
        served.read_until(r"ready, generation \w+:\n  dataproc exec word-counts.greet\n")
        exported = dict(re.findall(r"export (DATAPROC_\w+)=(\S+)", served.said))
        first = author.run("exec", "word-counts.greet", "name=Ada", "-o", "json", **exported)
        assert json.loads(first.stdout) == {"file": "greetings.txt", "lines": 1}, first.stderr
        source = (folder / "module.py").read_text()
        (folder / "module.py").write_text(source.replace("Hello", "Bye"))
        served.said = ""
        served.read_until(r"ready, generation \w+")
        author.run("exec", "word-counts.greet", "name=Ada", **exported)
        assert until(lambda: author.run("file", "get", "greetings.txt", "-", **exported).stdout) == "Bye, Ada!\n"
        served.said = ""
        (folder / "module.py").write_text(source + "\noops(\n")
        served.read_until(r"broken: SyntaxError[^\0]*the code before goes on")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
