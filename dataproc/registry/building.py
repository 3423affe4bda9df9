"""Makes the environment of a module with uv: resolved once into a lock of hashes, then built from that alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from dataproc.registry.environments import AUTHOR_API, LOCK, Environments, Needs, locked

HEADER = "# Exact versions and hashes, without addresses. Made by `dataproc module install`; keep it with the code.\n"
TIMEOUT = 1800.0
# Where pip is told to look, and uv is not, uv is told the same.
FROM_PIP = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}


class BuildFailed(Exception):
    """The environment cannot be made; the text is the builder's own."""


def install(folder: Path, needs: Needs, environments: Environments, *, upgrade: bool = False) -> Path:
    """Make the environment of the module in `folder`; where it is. BuildFailed leaves everything as it was.

    upgrade: resolve anew, although the lock fits.
    """
    environments.root.mkdir(parents=True, exist_ok=True)
    with FileLock(environments.root / ".building.lock"):
        lock = locked(folder, needs)
        if lock is None or upgrade:
            lock = _resolve(folder, needs, environments.root)
        place = environments.place(lock)
        if not (place / "bin" / "python").exists():
            _build(lock, needs, place)
        _keep(folder / LOCK, lock)
    return place


def _resolve(folder: Path, needs: Needs, root: Path) -> str:
    """The text of a fresh lock."""
    given = root / f".{uuid.uuid4().hex}"
    given.mkdir()
    try:
        (given / "author-api.in").write_text("\n".join(AUTHOR_API) + "\n")
        source = folder / "requirements.txt"
        if not source.is_file():
            source = given / "requirements.in"
            source.write_text(needs.requirements + "\n")
        options = ["--generate-hashes", "--no-header", "--no-annotate", "--python", _python(needs)]
        found = _uv("pip", "compile", *options, str(source.absolute()), str(given / "author-api.in"))
    finally:
        shutil.rmtree(given, ignore_errors=True)
    return f"{HEADER}# inputs: {needs.digest}\n{found}"


def _build(lock: str, needs: Needs, place: Path) -> None:
    part = place.with_name(f".{uuid.uuid4().hex}")
    try:
        _uv("venv", "--relocatable", "--no-project", "--python", _python(needs), str(part))
        (part / LOCK).write_text(lock)
        target = ["--python", str(part / "bin" / "python")]
        _uv("pip", "install", "--require-hashes", "--compile-bytecode", *target, "-r", str(part / LOCK))
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _keep(file: Path, lock: str) -> None:
    """Written also where it is the same: a running server looks again at a folder that changed."""
    part = file.with_name(f".{uuid.uuid4().hex}")
    try:
        part.write_text(lock)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _python(needs: Needs) -> str:
    """The server's own interpreter, unless the module asks for something."""
    return needs.python or sys.executable


def _uv(*arguments: str) -> str:
    """Run uv; what it printed. BuildFailed with its errors."""
    command = [*_command(), "--quiet", "--color", "never", "--no-python-downloads", *arguments]
    try:
        ran = subprocess.run(  # noqa: S603 - no shell, and uv's own arguments
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT, env=_environment(), umask=0o022
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"uv did not end within {TIMEOUT:g} s") from None
    if ran.returncode:
        raise BuildFailed(ran.stderr.strip() or f"uv ended with exit code {ran.returncode}")
    return ran.stdout


def _command() -> list[str]:
    if find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    if (found := shutil.which("uv")) is not None:
        return [found]
    raise BuildFailed("uv is not installed: pip install 'dataproc[environments]'")


def _environment() -> dict[str, str]:
    """Ours, with pip's places for packages where uv has none, and this interpreter found first."""
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    environ.pop("VIRTUAL_ENV", None)
    told = {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CONFIG_FILE"}
    if not told & environ.keys():
        environ |= _of_pip()
    return environ


def _of_pip() -> dict[str, str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout  # noqa: S603
    found: dict[str, str] = {}
    for line in listed.splitlines():  # later lines win, as with pip: global, user, site, environment
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        if option in FROM_PIP:
            found[FROM_PIP[option]] = " ".join(value.strip("'\"").replace("\\n", " ").split())
    if "UV_INDEX" in found:  # pip takes the best version of all places
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if "UV_FIND_LINKS" in found:
        found["UV_FIND_LINKS"] = found["UV_FIND_LINKS"].replace(" ", ",")
    return found
