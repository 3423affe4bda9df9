"""Definition files, services and Dockerfiles: what is read of them, and what is said of those that are wrong."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dataproc.module import ModuleBroken
from dataproc.registry.definition import PLACES, find_definition, read_definition
from dataproc.registry.services import Service, Services
from tests.factories import call
from tests.systems import a_caller, a_system, write_files

SH = "#!/bin/sh\nexit 0\n"


def a_definition(**scripts: Any) -> str:
    """A definition with those scripts, or one script `train`."""
    whole = scripts or {"train": {"path": "train", "type": "training", "input": {}, "output": {}}}
    return json.dumps({"name": "org.example.m", "description": "d", "scripts": whole})


def service(folder: Path, files: dict[str, str], name: str = "train") -> Service:
    """The service of a module that has these files."""
    write_files(folder, files)
    return Services(folder).named(name)


@pytest.mark.parametrize("place", PLACES)
def test_where_a_definition_may_be(tmp_path: Path, place: str) -> None:
    """Both names are taken, in `src/definitions` and at the root."""
    write_files(tmp_path, {place: a_definition(), "src/train.sh": SH})
    assert find_definition(tmp_path) == tmp_path / place
    told = read_definition("m", tmp_path)
    assert (told.alias, list(told.methods)) == ("org.example.m", ["train"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON: Expecting property name enclosed in double quotes at line 1 column 2"),
        ("[]", "the file: is to be an object"),
        ("{}", "lacks `scripts`"),
        ('{"scripts": []}', "scripts: is to be an object"),
        ('{"scripts": {}}', "scripts: is to hold"),
        ('{"name": 3, "scripts": {}}', "name: "),
        ('{"name": "a", "name": "b", "scripts": {}}', "contradicts itself: the name 'name' stands twice"),
        (a_definition(train={"type": "training"}), "scripts.train.path: is to name a service"),
        (a_definition(train={"path": "nothing"}), "scripts.train.path: there is no service 'nothing'"),
        (a_definition(train={"path": "train", "type": "guessing"}), "scripts.train.type: 'guessing' is none of"),
        (a_definition(train={"path": "train", "input": []}), "scripts.train.input: is to be an object"),
        (a_definition(train={"path": "train", "input": {"../x": {}}}), "scripts.train.input.../x: is no name"),
        (
            a_definition(train={"path": "train", "input": {"x": {"data_ddc": "a", "model_store_ddc": "b"}}}),
            "scripts.train.input.x: contradicts itself: it names data_ddc and model_store_ddc",
        ),
        (a_definition(**{"a b": {"path": "train"}}), "scripts.a b: is no label"),
        (a_definition(train={"path": "train", "description": 3}), "scripts.train.description: is to be a string"),
    ],
)
def test_definitions_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    """The reason names the file, and the place in it that is wrong."""
    write_files(tmp_path, {"src/definitions/definition.json": text, "src/train.sh": SH})
    with pytest.raises(ModuleBroken) as broken:
        read_definition("m", tmp_path)
    assert said in broken.value.reason
    assert broken.value.reason.startswith("src/definitions/definition.json: ")


async def test_a_broken_module_is_listed(tmp_path: Path) -> None:
    """Others work beside it, and its error is in the list and in the answer of a call."""
    write_files(tmp_path / "modules" / "bad_one", {"definition.json": "{"})
    write_files(tmp_path / "modules" / "good", {"definition.json": a_definition(), "src/train.sh": SH})
    async with a_system(tmp_path) as system, a_caller(system) as client:
        modules = {
            row["name"]: row
            for row in (await call(client, "dataproc.list_modules"))["result"]["modules"]
            if row["name"] in ("bad-one", "good")
        }
        assert modules["bad-one"]["state"] == "broken"
        assert "definition.json: is no JSON" in modules["bad-one"]["error"]
        assert modules["good"]["state"] == "ready"
        refused = await call(client, "dataproc.exec", {"module": "bad-one", "method": "train"})
        assert (refused["error"]["code"], refused["error"]["data"]["name"]) == (-32004, "module_not_found")
        assert "is no JSON" in refused["error"]["data"]["reason"]
        assert (await call(client, "dataproc.exec", {"module": "Good", "method": "train"}))["result"] is True


def test_compose_decides(tmp_path: Path) -> None:
    """`entrypoint` and `command` of the service, as lists or texts, with its environment; variables of the host are
    not a module's.
    """
    compose = """
        services:
          train:
            entrypoint: ["sh", "src/train.sh"]
            command: --rate "0 5" ${MORE:---fast} $$HOME
            environment:
              - GREETING=hello
              - EMPTY
          predict:
            command: [python, src/predict.py]
            environment: {N: 3}
        """
    found = service(tmp_path, {"docker-compose.yml": compose, "src/train.sh": SH})
    assert found.command == ("sh", "src/train.sh", "--rate", "0 5", "--fast", "$HOME")
    assert found.environment == {"GREETING": "hello", "EMPTY": ""}
    other = Services(tmp_path).named("predict")
    assert (other.command, other.environment) == (("python", "src/predict.py"), {"N": "3"})
    with pytest.raises(ModuleBroken, match="no service 'x'; it has: train, predict"):
        Services(tmp_path).named("x")


@pytest.mark.parametrize(
    ("service_of", "command"),
    [
        ("image: python:3.11", ("python", "src/train.py")),
        ("build: .", ("sh", "src/train.sh", "python", "src/train.py")),
        ("image: ours", ("sh", "src/train.sh", "python", "src/train.py")),
    ],
)
def test_the_entrypoint_is_that_of_the_image(tmp_path: Path, service_of: str, command: tuple[str, ...]) -> None:
    """A command is handed to the Dockerfile's ENTRYPOINT where this service, or another, builds the image."""
    compose = f"""
        services:
          train: {{{service_of}, command: python src/train.py}}
          other: {{build: ., image: ours}}
        """
    files = {"Dockerfile": 'FROM x\nENTRYPOINT ["sh", "src/train.sh"]\n', "docker-compose.yml": compose}
    assert service(tmp_path, files).command == command


def test_variables_that_double_without_end(tmp_path: Path) -> None:
    """A Dockerfile of a few lines cannot take the server's memory."""
    files = {"Dockerfile": "FROM x\nENV A=0123456789\n" + "ENV A=$A$A\n" * 40, "src/train.sh": SH}
    with pytest.raises(ModuleBroken, match="variables of a Dockerfile"):
        service(tmp_path, files)


def test_an_output_may_hold_tables_and_models(tmp_path: Path) -> None:
    """A definition may name both a data set and a model store for one output, as a request may."""
    both = {"data_ddc": "a", "model_store_ddc": "b"}
    text = a_definition(train={"path": "train", "output": {"x": both}})
    write_files(tmp_path, {"definition.json": text, "src/train.sh": SH})
    script = read_definition("m", tmp_path).methods["train"].script
    assert script is not None
    assert script.output == {"x": both}


LAUGHS = "a: &a x\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + of] * 10)}]\n" for of, name in pairwise("abcdefghij")
)
SHOUTS = f"a: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 1000)}]\n"


@pytest.mark.parametrize("bomb", [LAUGHS, SHOUTS], ids=["many", "long"])
def test_a_compose_file_that_aliases_blow_up(tmp_path: Path, bomb: str) -> None:
    """It is refused before anybody writes the aliases out; a file that uses some is read."""
    with pytest.raises(ModuleBroken, match="when its aliases are written out"):
        service(tmp_path, {"docker-compose.yml": bomb + "services: {train: {command: a}}"})
    shared = "x: &x {environment: {A: 1}, command: [sh, src/train.sh]}\nservices: {train: *x}"
    assert service(tmp_path, {"docker-compose.yml": shared, "src/train.sh": SH}).environment["A"] == "1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services: [", "is no YAML at line"),
        ("- a", "mapping with `services`"),
        ("x: 1", "lacks `services`"),
        ("services: {train: {}}", "gives it no command, and"),
        ("!!python/object/apply:os.system ['touch /tmp/owned']", "is no YAML"),
    ],
)
def test_compose_files_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    """The file is named, and where it is no YAML the place."""
    with pytest.raises(ModuleBroken, match=said):
        service(tmp_path, {"docker-compose.yml": text})


@pytest.mark.parametrize(
    ("dockerfile", "command"),
    [
        ('ENTRYPOINT ["sh", "src/train.sh"]\nCMD ["--fast"]', ("sh", "src/train.sh", "--fast")),
        ('CMD ["a"]\nENTRYPOINT ["b"]', ("b",)),
        ("CMD python src/train.py", ("python", "src/train.py")),
        ("CMD cd src && python train.py", ("/bin/sh", "-c", "cd src && python train.py", "sh")),
        ('FROM a\nENTRYPOINT ["no"]\nFROM b\nCMD ["yes"]', ("yes",)),
        ('WORKDIR /app\nCOPY . .\nENTRYPOINT ["sh", "/app/src/train.sh"]', ("sh", "src/train.sh")),
        ('WORKDIR /app\nCOPY src/ /opt/code/\nENTRYPOINT ["sh", "/opt/code/train.sh"]', ("sh", "src/train.sh")),
        ('COPY src/train.sh /usr/local/bin/go\nENTRYPOINT ["/usr/local/bin/go"]', ("src/train.sh",)),
        ('COPY src/train.sh src/other.sh /opt/\nCMD ["sh", "/opt/other.sh"]', ("sh", "src/other.sh")),
        (
            "ARG TOP=/app\nENV CODE=${TOP}/code\nWORKDIR $CODE\nCOPY . $CODE\n"
            'ENTRYPOINT ["sh", "/app/code/src/train.sh"]',
            ("sh", "src/train.sh"),
        ),
        ('ENTRYPOINT ["sh", \\\n  # why\n  "src/train.sh"]', ("sh", "src/train.sh")),
    ],
)
def test_dockerfiles(tmp_path: Path, dockerfile: str, command: tuple[str, ...]) -> None:
    """The last stage's ENTRYPOINT and CMD; places of the image are brought back to the module's files."""
    files = {"Dockerfile_train": f"FROM x\n{dockerfile}\n", "src/train.sh": SH, "src/other.sh": SH}
    assert service(tmp_path, files).command == command


def test_the_working_directory_of_an_image_is_shown(tmp_path: Path) -> None:
    """What was copied to WORKDIR is found in the current directory by its own name; ENV reaches the command."""
    files = {
        "Dockerfile": 'FROM x\nWORKDIR /app\nENV A=1 B="x y"\nENV C="$A-${D:-2}" A=3\nCOPY src/ ./\nCOPY conf/a.ini .\n'
        'ENTRYPOINT ["./train.sh"]\n',
        "src/train.sh": SH,
        "src/mnist/train.py": "",
        "conf/a.ini": "",
    }
    found = service(tmp_path, files)
    assert found.links == {"mnist": "src/mnist", "train.sh": "src/train.sh", "a.ini": "conf/a.ini"}
    assert (found.command, found.environment) == (("./train.sh",), {"A": "3", "B": "x y", "C": "1-2"})


def test_a_file_of_the_services_name(tmp_path: Path) -> None:
    """Without any of those, `src/<path>.sh` or `.py` is run, by the interpreter that it names."""
    assert service(tmp_path, {"src/train.py": ""}).command == ("python", "src/train.py")
    assert service(tmp_path, {"src/train.sh": "#!/usr/bin/env bash\n"}).command == ("bash", "src/train.sh")


async def test_any_language_runs(tmp_path: Path) -> None:
    """A compiled program, a script whose mode forbids to run it, and one that an image would have elsewhere."""
    module = tmp_path / "modules" / "many"
    labels = ("compiled", "plain", "image")
    write_files(
        module,
        {
            "definitions.json": a_definition(**{label: {"path": label} for label in labels}),
            "docker-compose.yml": """
                services:
                  compiled: {command: [bin/true]}
                  plain: {entrypoint: [./src/plain.sh]}
                  image: {build: {dockerfile: Dockerfile_image}}
                """,
            "src/plain.sh": '#!/bin/sh\ntest -d "$1/output"\n',
            "Dockerfile_image": "FROM python:3.11\nENV PATH=/opt/venv/bin:$PATH\nWORKDIR /app\nCOPY src/ .\n"
            'ENTRYPOINT ["/usr/local/bin/python", "/app/image.py"]\n',
            "src/image.py": "import os, shutil, sys\nassert os.path.isdir(sys.argv[1]) and os.path.exists('plain.sh')\n"
            "assert shutil.which('sh') and '$' not in os.environ['PATH']\n",
        },
    )
    (module / "src" / "plain.sh").chmod(0o644)
    (module / "bin").mkdir()
    (module / "bin" / "true").write_bytes(Path("/bin/true").read_bytes())
    (module / "bin" / "true").chmod(0o755)
    async with a_system(tmp_path) as system, a_caller(system) as client:
        for label in labels:
            told = await call(client, "dataproc.exec", {"module": "many", "method": label})
            assert told.get("result") is True, told
