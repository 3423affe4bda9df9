"""What a service of a script module runs: read from `docker-compose.yml`, a Dockerfile, or the name of a file in `src`.

No container is made. Words that name files of the image are brought back to the module's own files as far as `WORKDIR`
and `COPY` tell. Facts: the Compose specification and the Dockerfile reference, of which only this much is read.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from dataproc.module import ModuleBroken
from dataproc.registry.compose import MOST_BYTES, load

COMPOSE = ("docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml")
MOST_WORDS = 1000
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?::?-([^}]*))?\}|(\w+))")
_SHELL = re.compile(r"[|&;<>()$`\\\"'*?\[\]#~=%{}\n]")  # what makes a shell more than a list of words


@dataclass(frozen=True, slots=True)
class Service:
    """A command, its variables, and the names that its current directory has beside the module's own files."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Image:
    """What a Dockerfile says of a run. copies: (place in the image, file or folder of the module), the latest first.

    arguments: defaults of ARG, which no command sees.
    """

    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    workdir: PurePosixPath = field(default_factory=lambda: PurePosixPath("/"))
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    copies: list[tuple[PurePosixPath, str]] = field(default_factory=list)


class Services:
    """The services of the module in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.compose = next((name for name in COMPOSE if (folder / name).is_file()), None)
        self._told: dict[str, Any] | None = None

    def named(self, name: str) -> Service:
        """The service of that name. ModuleBroken where there is none, or it runs nothing."""
        told = self._of_compose(name)
        build = told.get("build") or self._build_of(told.get("image"))
        image = self._image(name, build)
        entrypoint, command = _words(told.get("entrypoint")), _words(told.get("command"))
        if command and not build:
            image.entrypoint = []  # of somebody else's image, not of a Dockerfile that lies about
        whole = (entrypoint or image.entrypoint) + (command or ([] if entrypoint else image.command))
        if "working_dir" in told:
            image.workdir = PurePosixPath("/", str(told["working_dir"]))
        links = dict(self._links(image))
        words = [self._word(word, image) for word in whole]
        words = self._startable(words, links) if words else self._by_name(name)
        if not words:
            places = f"Dockerfile_{name}, Dockerfile, src/{name}.sh and src/{name}.py"
            where = f"{self.compose} gives it no command, and " if self.compose else ""
            raise ModuleBroken(f"there is no service {name!r} that can be run: {where}{places} do not say what to run")
        if len(words) > MOST_WORDS or any("\0" in word for word in words):
            raise ModuleBroken(f"the command of service {name!r} cannot be run")
        return Service(tuple(words), {**image.environment, **_environment(told.get("environment"))}, links)

    def _of_compose(self, name: str) -> dict[str, Any]:
        if self.compose is None:
            return {}
        if self._told is None:
            self._told = load(self.folder / self.compose)
        services = self._told.get("services")
        if not isinstance(services, dict):
            raise ModuleBroken(f"{self.compose} lacks `services`")
        if name not in services:
            known = ", ".join(map(str, services))[:500] or "none"
            raise ModuleBroken(f"{self.compose} has no service {name!r}; it has: {known}")
        service = services[name]
        return service if isinstance(service, dict) else {}

    def _build_of(self, image: Any) -> Any:
        """How another service builds the image of that name."""
        services = (self._told or {}).get("services", {}).values() if image else ()
        known = [one for one in services if isinstance(one, dict) and one.get("image") == image]
        return next((one["build"] for one in known if one.get("build")), None)

    def _image(self, name: str, build: Any) -> Image:
        context, file = ".", None
        if isinstance(build, str):
            context = build
        elif isinstance(build, dict):
            context, file = str(build.get("context", ".")), build.get("dockerfile")
        names = [str(file)] if file else [f"Dockerfile_{name}", "Dockerfile"]
        for candidate in names:
            path = (self.folder / context / candidate).resolve()
            if path.is_relative_to(self.folder.resolve()) and path.is_file() and path.stat().st_size <= MOST_BYTES:
                text = path.read_text(encoding="utf-8", errors="replace")
                return _read_dockerfile(text, PurePosixPath(context), self.folder)
        return Image()

    def _by_name(self, name: str) -> list[str]:
        """`src/<name>.sh` or `src/<name>.py`."""
        for suffix, program in ((".sh", "sh"), (".py", "python")):
            file = self.folder / "src" / f"{name}{suffix}"
            if file.is_file():
                shown = f"src/{file.name}"
                return [*(_interpreter(file) or [program]), shown]
        return []

    def _word(self, word: str, image: Image) -> str:
        """An absolute word that names a file of the image, as the file of the module. Others are looked for in the
        current directory, which shows what the image's has.
        """
        if not word.startswith("/"):
            return word
        place = PurePosixPath(word)
        for prefix, source in [*image.copies, (image.workdir, ".")]:
            if place == prefix or prefix in place.parents:
                inside = PurePosixPath(source) / place.relative_to(prefix)
                if (self.folder / inside).exists():
                    return _runnable(inside)
        return word

    def _startable(self, words: list[str], links: dict[str, str]) -> list[str]:
        """A script whose mode forbids to run it is started by the interpreter that it names."""
        top, _, below = words[0].removeprefix("./").partition("/")
        file = self.folder / links.get(top, top) / below
        if "/" not in words[0] or words[0].startswith("/") or not file.is_file() or os.access(file, os.X_OK):
            return words
        return [*(_interpreter(file) or ["sh"]), *words]

    def _links(self, image: Image) -> Iterator[tuple[str, str]]:
        """What the image's working directory has at its top, as far as it was copied from the module."""
        for prefix, source in image.copies:
            origin = self.folder / source
            if prefix == image.workdir and origin.is_dir():
                yield from ((one.name, f"{source}/{one.name}") for one in sorted(origin.iterdir()))
            elif prefix.parent == image.workdir and origin.exists():
                yield prefix.name, source


def _runnable(inside: PurePosixPath) -> str:
    text = inside.as_posix()
    return text if "/" in text else f"./{text}"


def _interpreter(file: Path) -> list[str] | None:
    """The words after `#!`."""
    with file.open("rb") as opened:
        line = opened.readline(200)
    if not line.startswith(b"#!"):
        return None
    words = line[2:].decode("utf-8", "replace").split()
    if words and PurePosixPath(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-")]
    return words or None


def _words(told: Any) -> list[str]:
    """`entrypoint` or `command` of Compose: a list, or a text of words."""
    if told is None:
        return []
    if isinstance(told, list):
        return [_expanded(str(word)) for word in told]
    try:
        return [_expanded(word) for word in shlex.split(str(told))]
    except ValueError as error:
        raise ModuleBroken(f"a command of docker-compose.yml cannot be read: {error}") from None


@dataclass(slots=True)
class _Values:
    """Puts the values of variables into the texts of one file, `left` characters at most: each may double the last."""

    left: int = MOST_BYTES

    def put_into(self, text: str, known: Mapping[str, str] = MappingProxyType({})) -> str:
        """`$NAME` as what is known of it, `${NAME:-default}` else as its default: a host's variables are no module's.

        Raises ModuleBroken.
        """
        return _VARIABLE.sub(lambda found: "$" if found[0] == "$$" else self._value(found, known), text)

    def _value(self, found: re.Match[str], known: Mapping[str, str]) -> str:
        value = known.get(found[1] or found[3]) or found[2] or ""
        self.left -= len(value)
        if self.left < 0:
            raise ModuleBroken(f"the variables of a Dockerfile give more than {MOST_BYTES} characters")
        return value


def _expanded(text: str) -> str:
    return _Values().put_into(text)


def _environment(told: Any) -> dict[str, str]:
    pairs = told.items() if isinstance(told, dict) else (str(one).partition("=")[::2] for one in told or ())
    return {str(name): _expanded("" if value is None else str(value)) for name, value in pairs if str(name)}


def _read_dockerfile(text: str, context: PurePosixPath, folder: Path) -> Image:
    """The last stage's ENTRYPOINT, CMD, WORKDIR, ENV and COPY, with the variables that ENV and ARG give."""
    image, values = Image(), _Values()
    text = re.sub(r"\\[ \t]*\n(?:[ \t]*#.*\n)*", " ", text)
    for line in text.splitlines():
        instruction, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        known = ChainMap(image.environment, image.arguments)
        match instruction.upper():
            case "FROM":
                image = Image()
            case "WORKDIR":
                image.workdir = image.workdir / values.put_into(rest.strip("\"'"), known)
            case "ENTRYPOINT":
                image.entrypoint, image.command = _exec_form(rest), []
            case "CMD":
                image.command = _exec_form(rest)
            case "ENV":
                image.environment.update({name: values.put_into(text, known) for name, text in _env(rest).items()})
            case "ARG":
                given = {name: text for name, text in _env(rest).items() if text}
                image.arguments.update({name: values.put_into(text, known) for name, text in given.items()})
            case "COPY" | "ADD":
                _copy(image, values.put_into(rest, known), context, folder)
    return image


def _exec_form(rest: str) -> list[str]:
    """`["a", "b"]`; or the shell form, which needs a shell only where it is more than words."""
    if rest.startswith("["):
        try:
            return [str(word) for word in json.loads(rest)]
        except (json.JSONDecodeError, TypeError):
            pass
    if _SHELL.search(rest):
        return ["/bin/sh", "-c", rest, "sh"]
    return rest.removeprefix("exec ").split()


def _env(rest: str) -> dict[str, str]:
    try:
        words = shlex.split(rest)
    except ValueError:
        return {}
    if words and "=" not in words[0]:
        return {words[0]: " ".join(words[1:])}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _copy(image: Image, rest: str, context: PurePosixPath, folder: Path) -> None:
    if rest.startswith("["):
        words = _exec_form(rest)
    else:
        words = rest.split()
        if any(word.startswith("--from") for word in words):
            return
        words = [word for word in words if not word.startswith("--")]
    if len(words) < 2:
        return
    *sources, target = words
    place = image.workdir / target
    for source in sources:
        inside = (context / source.lstrip("/")).as_posix()
        named = not (folder / inside).is_dir() and (len(sources) > 1 or target.endswith(("/", ".")))
        into = place / PurePosixPath(source).name if named else place  # of a folder, what is in it is copied
        if ".." not in PurePosixPath(inside).parts:
            image.copies.insert(0, (into, inside))
