"""Import a module's code: done in a zygote or a worker, behind the walls, and by authors' own tests."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from dataproc.module.broken import ModuleBroken
from dataproc.module.failure import Origin, clipped, message_of, traceback_of, type_name
from dataproc.module.module import Module

Kind = Literal["folder", "entry_point", "script"]
REASON_LIMIT = 8 * 1024


def load(kind: Kind, location: str, name: str) -> Module:
    """The module at a place, imported, with every schema made.

    kind `folder`: `location` is a folder that holds `module.py`, or is or holds a package; it is put on `sys.path`, so
    that files beside it can be imported. kind `entry_point`: `location` is `package.file:attribute`. kind `script`: the
    folder of an xData script module, of which nothing is imported.
    name: the canonical name, for messages. ModuleBroken, with frames of the module alone, for whatever goes wrong.
    Meant for one module a process: loading another folder forgets the former's `module`.
    """
    if kind == "script":
        from dataproc.module.script import ScriptModule

        return ScriptModule(name, Path(location))
    origin = Origin.of(location) if kind == "folder" else _entry_origin(location)
    try:
        found = _from_folder(Path(location), name) if kind == "folder" else _from_entry_point(location)
        if not isinstance(found, Module):
            raise ModuleBroken(f"`module` is no dataproc.Module but {type_name(found)}")
        found.origin = origin
        found.prepare()
    except ModuleBroken as broken:
        raise ModuleBroken(clipped(broken.reason, REASON_LIMIT)) from None
    except BaseException as error:  # an import runs anything: sys.exit too
        summary = clipped(f"{type_name(error)}: {message_of(error)}", 1024)
        raise ModuleBroken(clipped(f"{summary}\n\n{traceback_of(error, origin)}", REASON_LIMIT)) from None
    return found


def find_source(folder: Path, name: str) -> Path | None:
    """The file that binds `module`: `module.py`, the folder's own `__init__.py`, or that of the package in it."""
    for candidate in (folder / "module.py", folder / "__init__.py"):
        if candidate.is_file():
            return candidate
    packages = sorted(path.parent for path in folder.glob("*/__init__.py"))
    named = [path for path in packages if path.name.lower().replace("_", "-") == name]
    chosen = named or packages
    return chosen[0] / "__init__.py" if len(chosen) == 1 else None


def _from_folder(folder: Path, name: str) -> Any:
    source = find_source(folder, name)
    if source is None:
        raise ModuleBroken("the folder holds neither module.py nor one package")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    return _bound(_execute(source, _import_name(source, folder)), "module")


def _import_name(source: Path, folder: Path) -> str:
    """Importable by that name in child processes too, except for a folder that is a package itself."""
    if source.name == "module.py":
        return "module"
    return source.parent.name if source.parent != folder else "module"


def _execute(source: Path, import_name: str) -> ModuleType:
    for known in [key for key in sys.modules if key == import_name or key.startswith(f"{import_name}.")]:
        del sys.modules[known]
    places = [str(source.parent)] if source.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(import_name, source, submodule_search_locations=places)
    if spec is None or spec.loader is None:
        raise ModuleBroken(f"{source.name} cannot be imported")
    code = importlib.util.module_from_spec(spec)
    sys.modules[import_name] = code
    spec.loader.exec_module(code)
    return code


def _from_entry_point(value: str) -> Any:
    path, _, attribute = value.partition(":")
    return _bound(importlib.import_module(path.strip()), attribute.strip() or "module")


def _bound(code: ModuleType, attribute: str) -> Any:
    target: Any = code
    for part in attribute.split("."):
        try:
            target = getattr(target, part)
        except AttributeError:
            raise ModuleBroken(f"{code.__name__} binds no `{attribute}`") from None
    return target


def _entry_origin(value: str) -> Origin:
    """The top package's folder, or the single file; nothing of it is imported for that."""
    top = value.partition(":")[0].partition(".")[0].strip()
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return Origin.of("/nowhere")
    file = Path(spec.origin)
    root = file.parent if spec.submodule_search_locations else file
    return Origin.of(root, root.parent)
