"""What of the machine's files a zygote is shown, worked out by the server: the system, the interpreter, the module.

Only names: the keeper opens them. Nothing of the storage, of the settings, of anybody's home stands in it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from dataproc.engine.mounts import MODULE

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
CONFIGURATION = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "default/locale", "fonts", "host.conf", "ld.so.cache",
    "ld.so.conf", "ld.so.conf.d", "locale.alias", "locale.conf", "localtime", "mime.types", "nsswitch.conf",
    "openssl", "pki/tls/certs", "protocols", "services", "ssl/certs", "ssl/openssl.cnf", "timezone",
)  # fmt: skip
NETWORK_CONFIGURATION = ("hosts", "resolv.conf")
LIBRARY = "/opt/dataproc"  # where the author's API and the worker's loop are found, whatever interpreter runs them
AUTHOR_API = ("__init__.py", "module", "engine")  # all of the package that a worker may import


ENVIRONMENT, BASE = "/opt/env", "/opt/python"
# A worker's own places hide what the machine has there.
OWN = ("/work", "/session", "/application", "/locks", "/module", "/xdata", "/tmp", "/dev", "/proc", "/opt")  # noqa: S108


@dataclass(frozen=True, slots=True)
class View:
    """(source, target) pairs that are shown read-only, links, small files made up, and where the interpreter stands."""

    binds: list[list[str]]
    links: list[list[str]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    executable: str = ""


def system_view(*, code: Path | None, interpreter: str, uid: int, network: bool) -> View:
    """The view of one zygote: the system, `code` at /module, and the interpreter with its packages."""
    view = View([], [], {"/etc/passwd": _passwd(uid), "/etc/group": f"worker:x:{uid}:\nroot:x:0:\n"})
    names = CONFIGURATION + (NETWORK_CONFIGURATION if network else ())
    for path in (*SYSTEM, *(f"/etc/{name}" for name in names)):
        if os.path.islink(path) and path in SYSTEM:
            view.links.append([path, os.readlink(path)])
        elif os.path.exists(path):
            view.binds.append([os.path.realpath(path), path])
    executable = _show_interpreter(view, Path(interpreter))
    package = Path(__file__).parent.parent
    view.binds.extend([str(package / name), f"{LIBRARY}/dataproc/{name}"] for name in AUTHOR_API)
    if code is not None:
        view.binds.append([str(code), MODULE])
    return replace(view, executable=executable)


def _show_interpreter(view: View, interpreter: Path) -> str:
    """Show the interpreter: the base where it is, if it can be, and its virtual environment at a place of its own."""
    environment, real = interpreter.parent.parent, Path(os.path.realpath(interpreter))
    base = real.parent.parent
    shown = BASE if _under(str(base), OWN) else str(base)
    if not _under(str(base), SYSTEM):
        view.binds.append([str(base), shown])
    inside = f"{shown}/bin/{real.name}"
    if not (environment / "pyvenv.cfg").exists():
        return inside
    for entry in sorted(environment.iterdir()):
        if entry.is_symlink():
            view.links.append([f"{ENVIRONMENT}/{entry.name}", os.readlink(entry)])
        elif entry.is_dir() and entry.name != "bin":
            view.binds.append([str(entry), f"{ENVIRONMENT}/{entry.name}"])
    view.texts[f"{ENVIRONMENT}/pyvenv.cfg"] = f"home = {shown}/bin\ninclude-system-site-packages = false\n"
    view.links.extend([f"{ENVIRONMENT}/bin/{name}", inside] for name in {"python", "python3", real.name})
    return f"{ENVIRONMENT}/bin/python"


def _under(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(place + "/") for place in places)


def _passwd(uid: int) -> str:
    return f"root:x:0:0:root:/:/usr/sbin/nologin\nworker:x:{uid}:{uid}:worker:/work:/bin/sh\n"


def default_interpreter() -> str:
    """The server's own."""
    return sys.executable
