"""`ScriptModule`: runs the commands of an xData script module. It runs in a worker, behind the walls.

The server works out what is to be run and hands it over as the params; nothing of the module is imported. Standard
library only. Facts: the directories of a script as the public xData documentation of modules names them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from dataproc.module.context import Context
from dataproc.module.module import Module
from dataproc.module.reply import Raised, Reply, Returned

TREE = ("input", "output", "work")
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as a shell says it


class ScriptModule(Module):
    """A module whose methods are commands. `folder`: where its files are."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self.folder = folder

    def invoke(self, method: str, ctx: Context, params: dict[str, Any]) -> Reply:
        """Make the tree, run the command in it, and say how it ended. Nothing escapes."""
        try:
            here = ctx.input["runs"] / params["run"]
            top = self._make(here, ctx, params)
            code = run(params["command"], here, top, params["environment"])
            if code:
                how = f"exit code {code}" if code <= 128 else f"exit code {code}, as after signal {code - 128}"
                return Raised("ScriptFailed", f"the command ended with {how}", exit_code=code)
            for name, path in params["keep"].items():
                keep(top / "output" / name, ctx.session, path)
        except FileNotFoundError as error:
            return Raised("FileNotFoundError", f"there is no {_shown(error, ctx)}", exit_code=NOT_FOUND)
        except PermissionError as error:
            return Raised("PermissionError", f"not permitted: {_shown(error, ctx)}", exit_code=NOT_EXECUTABLE)
        except OSError as error:
            return Raised(type(error).__name__, f"{error.strerror}: {_shown(error, ctx)}")
        except BaseException as error:  # SIGTERM too: the server knows why
            return Raised(type(error).__name__, str(error)[:1000])
        return Returned(b"true")

    def _make(self, here: Path, ctx: Context, params: dict[str, Any]) -> Path:
        """The current directory, with links to the module's files, and in it the tree; its top."""
        top: Path = here / params["tree"]
        here.mkdir()
        for name in os.listdir(self.folder):
            os.symlink(self.folder / name, here / name)
        for name, path in params["links"].items():
            if not os.path.lexists(here / name):
                os.symlink(self.folder / path, here / name)
        for place in (top, *(top / name for name in TREE)):
            place.mkdir()
        os.symlink(ctx.input["module-session"], top / "session")
        os.symlink(ctx.application, top / "application")
        (top / "configuration.json").write_text(json.dumps(params["configuration"], ensure_ascii=False, indent=1))
        link_files(ctx.input["given"] / params["run"], top / "input")
        for name, path in params["files"].items():
            link_file(ctx.session / path, top / "input" / name)
        for name, value in params["values"].items():
            (top / "input" / name).mkdir()
            (top / "input" / name / "value.json").write_text(json.dumps(value, ensure_ascii=False))
        return top


def link_files(source: Path, target: Path) -> None:
    """The folders below `source` made anew, with links to the files in them."""
    if not source.is_dir():
        return
    for folder, _, files in os.walk(source):
        place = target / os.path.relpath(folder, source)
        place.mkdir(exist_ok=True)
        for name in files:
            os.symlink(os.path.join(folder, name), place / name)


def link_file(source: Path, folder: Path) -> None:
    """A folder with one link, to a file of the session. Raises FileNotFoundError."""
    if not source.exists():
        raise FileNotFoundError(2, "no such file", str(source))
    folder.mkdir()
    os.symlink(source, folder / source.name)


def keep(output: Path, session: Path, path: str) -> None:
    """Move what an output holds to the session directory: one file to that path, several into a folder of it."""
    files = sorted(one for one in output.iterdir() if not one.is_symlink()) if output.is_dir() else []
    target = session / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if len(files) == 1 and files[0].is_file():
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        shutil.copyfile(files[0], part)
        part.rename(target)  # whoever reads the old one goes on reading it
        return
    for one in files:
        target.mkdir(exist_ok=True)
        if one.is_dir():
            shutil.copytree(one, target / one.name, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copyfile(one, target / one.name)


def run(command: list[str], here: Path, top: Path, environment: dict[str, str]) -> int:
    """Run it to its end; its exit code, as a shell would give it. Its output is the run's log."""
    if command[0].startswith("/") and not os.path.exists(command[0]):
        command = [os.path.basename(command[0]), *command[1:]]  # where an image has it need not be where we have it
    places = [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath), environment.get("PATH", "")]
    path = ":".join(place for place in ":".join(places).split(":") if place)  # the image's last: it is not here
    told = {**os.environ, **environment, "PATH": path, "XDATA_DIR": str(top), "PWD": str(here)}
    process = subprocess.Popen(  # noqa: S603 - running it is what this is for
        [*command, str(top)], cwd=here, env=told, stdin=subprocess.DEVNULL, process_group=0
    )
    try:
        code = process.wait()
    except BaseException:  # the run is to end: the command first, in its own way
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    return code if code >= 0 else 128 - code


def _shown(error: OSError, ctx: Context) -> str:
    """What an error names, without the places that only the server knows."""
    name = str(error.filename or "")
    for place in (ctx.session, *ctx.input.values()):
        name = name.replace(f"{place}/", "")
    return repr(name)
