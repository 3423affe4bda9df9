"""Importing a module: where it is found, and what its author is told when it fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataproc.module import Context, ModuleBroken, Raised, Returned, load

FIXTURES = Path(__file__).parents[2] / "modules"


@pytest.fixture(autouse=True)
def _imports_undone() -> Iterator[None]:
    """`load` is meant for one module a process."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py" if name != "__init__" else folder / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_folder_with_module_py() -> None:
    """`module.py` binds `module`; its methods can be called."""
    module = load("folder", str(FIXTURES / "echo"), "echo")
    assert module.name == "com.example.echo"
    assert module.invoke("echo", Context(Path("/session")), {"value": [1]}) == Returned(b"[1]")


def test_a_folder_with_a_package() -> None:
    """A package in the folder binds `module`, with relative imports."""
    module = load("folder", str(FIXTURES / "packaged"), "packaged")
    assert module.invoke("greet", Context(Path("/session")), {}) == Returned(b'"hello, you"')


def test_a_folder_that_is_a_package(tmp_path: Path) -> None:
    """The folder's own `__init__.py` binds `module`, whatever the folder is called."""
    code = "from dataproc import Module\nfrom .beside import N\nmodule = Module('m', version=N)"
    folder = write(tmp_path / "with-dash", __init__=code, beside="N = '7'")
    assert load("folder", str(folder), "with-dash").version == "7"


def test_files_beside_it_can_be_imported(tmp_path: Path) -> None:
    """The module's folder is on the import path."""
    write(
        tmp_path,
        module="from dataproc import Module\nfrom beside_it import N\nmodule = Module('m', version=N)",
        beside_it="N = '7'",
    )
    assert load("folder", str(tmp_path), "m").version == "7"


def test_an_entry_point_is_imported_by_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`package.file:attribute`; a traceback shows the path inside the package."""
    write(
        tmp_path / "installed_pkg",
        __init__="",
        deep="from dataproc import Module\nm = Module('m')\n@m.method\ndef f():\n    1/0\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    reply = load("entry_point", "installed_pkg.deep:m", "m").invoke("f", Context(Path("/session")), {})
    assert isinstance(reply, Raised)
    assert 'File "installed_pkg/deep.py", line 5, in f' in reply.traceback


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (", r"SyntaxError.*\n\nSyntaxError: module\.py, line 1"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("from json import nothing_like_that", r"cannot import name 'nothing_like_that' from 'json' \(__init__\.py\)"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("", "module binds no `module`"),
        ("module = 3", "no dataproc.Module but int"),
        ("from dataproc import Module\nmodule = Module('m')\n@module.method\ndef f(*a): ...", r"'f' \(module\.py:3\)"),
    ],
)
def test_the_reason_is_for_the_author(tmp_path: Path, text: str, said: str) -> None:
    """Whatever an import does is one error, whose reason names the module's files and no others."""
    write(tmp_path, module=text)
    with pytest.raises(ModuleBroken, match=said) as caught:
        load("folder", str(tmp_path), "m")
    assert str(tmp_path) not in caught.value.reason
    assert "importlib" not in caught.value.reason


def test_a_duplicate_names_both_places() -> None:
    """The listing will show where both definitions are."""
    with pytest.raises(ModuleBroken, match=r"'run' is defined twice: at module\.py:8 and at module\.py:13"):
        load("folder", str(FIXTURES / "duplicate"), "duplicate")


def test_a_folder_without_a_module_is_broken(tmp_path: Path) -> None:
    """The reason says what was looked for."""
    with pytest.raises(ModuleBroken, match=r"neither module\.py nor one package"):
        load("folder", str(tmp_path), "m")
