"""The files of a new module: small enough to be read at once, and tested from the first minute."""

from __future__ import annotations

from pathlib import Path

from dataproc.cli.problems import CommandError
from dataproc.registry.names import CANONICAL

MODULE = '''\
"""{name}: say here what it is for."""

from typing import Annotated

from pydantic import BaseModel, Field

from dataproc import Context, Module

module = Module("{name}", version="0.1.0", description="Says what it does in one line.")


class Greeted(BaseModel):
    """What `greet` answers."""

    file: str
    lines: int


@module.method
def greet(
    ctx: Context,
    name: Annotated[str, Field(min_length=1, max_length=100, description="Whom to greet.", examples=["Ada"])],
    times: Annotated[int, Field(ge=1, le=1000, description="How often.")] = 1,
) -> Greeted:
    """Write greetings to a file of the session directory."""
    path = ctx.session / "greetings.txt"
    path.write_text(f"Hello, {{name}}!\\n" * times)
    return Greeted(file=path.name, lines=times)
'''

TEST = '''\
"""Each test has a session of its own; methods run confined, as in production, with no server."""

import pytest

from dataproc.errors import InvalidParams
from dataproc.testing import RunMethod


def test_a_greeting_is_written(run_method: RunMethod) -> None:
    """The file is in the session directory, and the answer names it."""
    ran = run_method("greet", name="Ada", times=2)
    assert ran.result == {{"file": "greetings.txt", "lines": 2}}
    assert ran.files["greetings.txt"].read_text() == "Hello, Ada!\\nHello, Ada!\\n"


def test_params_are_checked_before_the_run(run_method: RunMethod) -> None:
    """What the schema refuses never reaches the method."""
    with pytest.raises(InvalidParams, match="times"):
        run_method("greet", name="Ada", times=0)
'''

README = """\
# {name}

Say here what the module is for, and who should use it.

| method | does | answers |
|---|---|---|
{table}

Try it:

- `dataproc module check {path}` imports it in the sandbox and prints its schemas;
- `pytest {path}` runs its tests;
- `dataproc module dev {path}` serves it, and from another shell `{call}` calls it.
"""

DEFINITION = """\
{{
  "name": "org.example.{name}",
  "description": "Says what it does in one line.",
  "version": "0.1.0",
  "supports": [],
  "definitions": {{}},
  "scripts": {{
    "greet": {{
      "description": "Write greetings to a file. params: `name`, `times`.",
      "path": "greet",
      "type": "data_transformation",
      "input": {{}},
      "output": {{"greetings": {{"path": "greetings.txt", "description": "a greeting a line"}}}}
    }}
  }}
}}
"""

SCRIPT = '''\
#!/usr/bin/env python3
"""One run: reads configuration.json of its tree, which is the first argument, and leaves files in output/<name>/."""

import json
import sys
from pathlib import Path

tree = Path(sys.argv[1])
params = json.loads((tree / "configuration.json").read_text())["params"]
folder = tree / "output" / "greetings"
folder.mkdir(parents=True, exist_ok=True)
lines = f"Hello, {{params.get('name', 'world')}}!\\n" * int(params.get("times", 1))
(folder / "greetings.txt").write_text(lines)
print(f"{{len(lines.splitlines())}} lines")  # the run's log
'''

SCRIPT_TEST = '''\
"""Each test has a session of its own; scripts run confined, as in production, with no server."""

from dataproc.testing import RunMethod


def test_a_greeting_is_written(run_method: RunMethod) -> None:
    """What the script leaves in output/greetings/ is stored where the definition says: in the session directory."""
    ran = run_method("greet", name="Ada", times=2)
    assert ran.files["greetings.txt"].read_text() == "Hello, Ada!\\nHello, Ada!\\n"
    assert "2 lines" in ran.output
'''

TABLE = "| `greet` | writes greetings to `greetings.txt` in the session directory | `file`, `lines` |"


def create(folder: Path) -> list[Path]:
    """Make the folder of a Python module; the files in it. CommandError where the name or the place will not do."""
    name = checked_name(folder)
    table, call = TABLE, f"dataproc exec {name}.greet name=Ada"
    texts = {
        "module.py": MODULE.format(name=name),
        "README.md": README.format(name=name, path=folder, table=table, call=call),
        "tests/test_greet.py": TEST.format(),
    }
    return write(folder, texts)


def create_script(folder: Path) -> list[Path]:
    """The same for a module of scripts."""
    name = checked_name(folder)
    table = "| `greet` | writes `greetings.txt` to the session directory | what it stored |"
    call = f"""dataproc exec {name}.greet --params '{{"name": "Ada"}}'"""
    texts = {
        "src/definitions/definition.json": DEFINITION.format(name=name),
        "src/greet.py": SCRIPT.format(),
        "README.md": README.format(name=name, path=folder, table=table, call=call),
        "tests/test_greet.py": SCRIPT_TEST.format(),
    }
    return write(folder, texts)


def checked_name(folder: Path) -> str:
    """The folder's name, if a module may have it and nothing is there."""
    name = folder.name
    if not CANONICAL.fullmatch(name):
        raise CommandError(f"{name!r} is no name for a module: lower case letters, digits and '-', like word-counts")
    if folder.exists():
        raise CommandError(f"{folder} is there already")
    return name


def write(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write the files, whose names are relative to the folder."""
    for path, text in texts.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        if text.startswith("#!"):
            target.chmod(0o755)
    return [folder / path for path in texts]
