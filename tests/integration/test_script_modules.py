"""xData script modules as they run: the tree, the lives of its folders, inputs, outputs, failures."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dataproc.composition import System
from tests.factories import call, open_session, with_token
from tests.systems import a_caller, a_system, write_files

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
COLUMNS = [{"column_name": "id", "data_type": "int"}, {"column_name": "name", "data_type": "text", "nullable": True}]
RECORDS = [[1, "a,b"], [2, None], [3, 'q"q']]
LABELS = (
    "look", "copy", "fail", "half", "quiet", "linked", "count", "hurt", "killed", "leave", "write", "slow", "noisy",
)  # fmt: skip
SCRIPTS = {
    "look": """
        #!/usr/bin/env python3
        import json, os, sys
        top = sys.argv[1]
        found = {
            "here": sorted(os.listdir(".")),
            "tree": sorted(os.listdir(top)),
            "same": os.environ["XDATA_DIR"] == top,
            "name": os.path.basename(top),
            "input": sorted(os.path.relpath(os.path.join(f, n), top + "/input")
                            for f, _, ns in os.walk(top + "/input") for n in ns),
            "configuration": json.load(open(top + "/configuration.json")),
            "environment": {k: os.environ.get(k) for k in ("GREETING", "DATAPROC_STORAGE_URL")},
            "words": sys.argv[2:],
        }
        for name in ("session", "application"):
            with open(f"{top}/{name}/seen", "a") as file:
                file.write("x")
            found[name] = os.path.getsize(f"{top}/{name}/seen")
        texts = {n: open(os.path.join(top, "input", n)).read() for n in found["input"] if not n.endswith("model")}
        os.makedirs(top + "/output/report")
        json.dump({**found, "texts": texts}, open(top + "/output/report/report.json", "w"))
        open("scratch", "w").write("x")
        """,
    "copy": """
        #!/bin/sh
        set -eu
        mkdir -p "$1/output/table"
        cp "$1"/input/table/*.csv "$1/output/table/copy.csv"
        """,
    "fail": """
        #!/bin/sh
        echo to the log
        echo and this >&2
        exit 3
        """,
    "half": """
        #!/bin/sh
        mkdir -p "$1/output/table" "$1/output/model"
        printf 'id,name\\n9,z\\n' > "$1/output/table/a.csv"
        echo weights > "$1/output/model/m"
        exit 1
        """,
    "quiet": "#!/bin/sh\nexit 0\n",
    "linked": """
        #!/bin/sh
        mkdir -p "$1/output/model" "$1/output/table"
        ln -s /etc/passwd "$1/output/model/stolen"
        ln -s "$1/session" "$1/output/report"
        ln -s "$1/session" "$1/output/table/deep"
        """,
    "count": """
        #!/usr/bin/env python3
        import fcntl, os, sys
        place = os.path.join(sys.argv[1], "session")
        with open(place + "/lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                number = int(open(place + "/number").read())
            except FileNotFoundError:
                number = 0
            with open(place + "/part", "w") as file:
                file.write(str(number + 1))
            os.rename(place + "/part", place + "/number")
        assert len([n for n in os.listdir(".") if len(n) == 36]) == 1
        """,
    "hurt": """
        #!/usr/bin/env python3
        import os, sys
        top, hurt = sys.argv[1], []
        for folder, _, names in os.walk(top + "/input"):
            for name in names:
                path = os.path.realpath(os.path.join(folder, name))
                for act in (lambda: open(path, "a"), lambda: os.chmod(path, 0o777), lambda: os.unlink(path),
                            lambda: os.rename(path, path + "x"), lambda: os.link(path, "/xdata/runs/kept")):
                    try:
                        act()
                        hurt.append(path)
                    except OSError:
                        pass
        for path in ("/outside", "/module/x", "/xdata/x", "/usr/x", os.path.dirname(top) + "/../../../x"):
            try:
                open(path, "w")
                hurt.append(path)
            except OSError:
                pass
        sys.exit(9 if hurt else 0)
        """,
    "killed": "#!/bin/sh\nkill -9 $$\n",
    "leave": '#!/bin/sh\nsleep 300 &\nmkdir -p "$1/work/deep"; chmod 0 "$1/work/deep"; exit 0\n',
    "write": """
        #!/bin/sh
        mkdir -p "$1/output/report" "$1/output/model"
        cat "$1"/input/anything/* > "$1/output/report/said.txt"
        echo w > "$1/output/model/m"
        """,
    "slow": """
        #!/usr/bin/env python3
        import signal, sys, time
        def end(*_):
            open(sys.argv[1] + "/session/ended", "w").close()
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        open(sys.argv[1] + "/session/begun", "w").close()
        time.sleep(60)
        """,
    "noisy": """
        #!/usr/bin/env python3
        import os, sys
        os.makedirs(sys.argv[1] + "/output/table")
        with open(sys.argv[1] + "/output/table/t.csv", "w") as file:
            file.write("n,x,flag,day,at,said,gap\\n")
            file.write("1,1,true,2025-07-09,2025-07-09T11:06:04Z,hello,\\n")
            file.write("2,1.5,false,2025-07-10,2025-07-10T11:06:04Z,world,3\\n")
        """,
}
DEFINITION: dict[str, Any] = {
    "name": "org.example.tester",
    "description": "For tests.",
    "unknown": {"kept": "and ignored"},
    "scripts": {
        label: {
            "description": f"{label} it",
            "path": label,
            "type": "data_transformation",
            "input": {
                "table": {"description": "a table"},
                "other": {},
                "model": {},
                "anything": {},
            },
            "output": {"table": {}, "model": {"model_kind": "k", "model_description": "d"}, "report": {}},
        }
        for label in LABELS
    },
}
DEFINITION["scripts"]["demand"] = {
    "path": "quiet",
    "input": {"table": {"required": True}, "other": {"value": 1}},
    "output": {},
}


def install(folder: Path, name: str = "tester") -> None:
    """The module of these tests."""
    place = folder / "modules" / name
    write_files(place, {f"src/{label}.sh": text for label, text in SCRIPTS.items()})
    write_files(place, {"src/definitions/definition.json": json.dumps(DEFINITION)})


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    install(tmp_path)
    async with a_system(tmp_path) as made:
        yield made


@pytest.fixture
async def client(system: System) -> AsyncIterator[httpx.AsyncClient]:
    async with a_caller(system) as made:
        session = await open_session(made)
        made.headers.clear()
        made.headers.update(with_token(session["access_token"]))
        made.session_id = session["session_id"]  # type: ignore[attr-defined]
        yield made


async def rpc(client: httpx.AsyncClient, rpc_method: str, **params: Any) -> Any:
    """The result of a call, or its error."""
    answer = await call(client, rpc_method, params)
    return answer.get("result", answer.get("error"))


async def run(client: httpx.AsyncClient, method: str, **more: Any) -> Any:
    """The result of a script, or the error."""
    return await rpc(client, "dataproc.exec", module="tester", method=method, **more)


async def dataset(client: httpx.AsyncClient, name: str = "people") -> None:
    """A data set with three records."""
    assert "id" in await rpc(client, "dataset.create", dataset_name=name, columns=COLUMNS)
    assert await rpc(client, "dataset.record.put", dataset_name=name, records=RECORDS) == 3


async def report(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    """What `look` saw."""
    told = await run(client, "look", output={"report": {"path": "reports/look.json"}}, **more)
    assert told is True, told
    return dict((await client.get("/api/v1/dataproc/files/reports/look.json")).json())


def left(system: System) -> list[str]:
    """What lies about of runs that have ended."""
    sessions = Path(system.settings.storage_url) / "sessions"
    return [str(path) for path in (*sessions.glob("*/*/modules/.runs/*/*/*"), *sessions.glob("*/*/given/*/*/*"))]


async def test_the_tree_of_a_run(client: httpx.AsyncClient, system: System) -> None:
    """The current directory shows the module's files and one UUID, in which all six entries are; the first argument
    and XDATA_DIR name it; afterwards nothing of it is left.
    """
    seen = await report(client, params={"epochs": 3, "text": "日本"})
    assert re.fullmatch(UUID, seen["name"])
    assert sorted(seen["here"]) == sorted(["src", seen["name"]])
    assert seen["tree"] == ["application", "configuration.json", "input", "output", "session", "work"]
    assert seen["same"]
    told = seen["configuration"]
    assert (told["module"], told["method"], told["params"]) == ("tester", "look", {"epochs": 3, "text": "日本"})
    assert told["session_id"] == client.session_id  # type: ignore[attr-defined]
    assert re.fullmatch(UUID, told["run_id"])
    assert seen["environment"]["DATAPROC_STORAGE_URL"] is None
    assert left(system) == []
    assert (await report(client))["name"] != seen["name"]


async def test_lives_of_session_and_application(client: httpx.AsyncClient, system: System) -> None:
    """`session/` lives as long as the session, `application/` as long as the key, and neither is served."""
    assert [(await report(client))["session"] for _ in range(2)] == [1, 2]
    assert "seen" not in (await client.get("/api/v1/dataproc/files/?recursive=true")).text
    async with a_caller(system) as other:
        seen = await rpc(other, "dataproc.exec", module="tester", method="look")
        assert seen is True
    await client.post("/api/v1/session/jsonrpc", json={"jsonrpc": "2.0", "id": 1, "method": "session.keep_alive"})
    seen_again = await report(client)
    assert (seen_again["session"], seen_again["application"]) == (3, 3)


async def test_parallel_runs_share_session_with_locks(client: httpx.AsyncClient, system: System) -> None:
    """Runs at once in one session lose nothing that they count under `flock`, and each sees its own tree alone."""
    answers = await asyncio.gather(*(run(client, "count") for _ in range(8)))
    assert answers == [True] * 8
    [number] = (Path(system.settings.storage_url) / "sessions").glob("*/*/modules/tester/number")
    assert number.read_text() == "8"


async def test_inputs_of_every_kind(client: httpx.AsyncClient) -> None:
    """A data set comes as CSV with a header, a model with its info, a file of the session and a value as files."""
    await dataset(client)
    await client.put("/api/v1/dataproc/files/in/notes.txt", content=b"notes")
    told = await run(client, "write", input={"anything": {"value": "w"}}, output={"model": {"model_store_ddc": "s"}})
    assert told is True, told
    seen = await report(
        client,
        input={
            "table": {"data_ddc": "ddc:people"},
            "model": {"model_store_ddc": "ddc:s", "query": {"=": ["model_kind", "k"]}},
            "other": {"path": "in/notes.txt"},
            "anything": {"value": {"a": [1, None]}},
        },
    )
    model_id = next(name.split("/")[1] for name in seen["input"] if name.endswith("/model"))
    assert seen["input"] == sorted(
        ["table/people.csv", f"model/{model_id}/model", f"model/{model_id}/model_info.json", "other/notes.txt",
         "anything/value.json"]
    )  # fmt: skip
    assert seen["texts"]["table/people.csv"].splitlines() == ["id,name", '1,"a,b"', "2,", '3,"q""q"']
    assert seen["texts"]["other/notes.txt"] == "notes"
    assert json.loads(seen["texts"]["anything/value.json"]) == {"a": [1, None]}
    assert json.loads(seen["texts"][f"model/{model_id}/model_info.json"])["model_id"] == model_id
    assert seen["configuration"]["input"]["table"]["data_ddc"] == "ddc:people"


async def test_a_table_becomes_a_version(client: httpx.AsyncClient) -> None:
    """A CSV that a script leaves is the data set's newest version; the earlier one is there by its long name."""
    await dataset(client)
    told = await run(
        client, "copy", input={"table": {"data_ddc": "people"}}, output={"table": {"data_ddc": "ddc:copied"}}
    )
    assert told is True, told
    rows = await rpc(client, "dataset.record.get", citation_label="ddc:copied")
    assert rows == [{"id": 1, "name": "a,b"}, {"id": 2, "name": None}, {"id": 3, "name": 'q"q'}]
    [info] = [each for each in await rpc(client, "dataset.list") if each["short_form"] == "copied"]
    await rpc(client, "dataset.record.delete", dataset_name="people", condition={">": ["id", 1]})
    again = await run(
        client, "copy", input={"table": {"data_ddc": "people"}}, output={"table": {"data_ddc": "ddc:copied"}}
    )
    assert again is True
    assert len(await rpc(client, "dataset.record.get", citation_label="copied")) == 1
    assert len(await rpc(client, "dataset.record.get", citation_label=info["long_form"])) == 3


async def test_types_of_columns_are_inferred_or_declared(client: httpx.AsyncClient) -> None:
    """Without a declaration each column is the narrowest that holds its values; a declaration decides."""
    assert await run(client, "noisy", output={"table": {"data_ddc": "t"}}) is True
    columns = await rpc(client, "dataset.get_columns", dataset_name="t")
    assert [(each["column_name"], each["data_type"], each["nullable"]) for each in columns] == [
        ("n", "integer", False), ("x", "double", False), ("flag", "boolean", False), ("day", "date", False),
        ("at", "timestamp with time zone", False), ("said", "text", False), ("gap", "integer", True),
    ]  # fmt: skip
    declared = [{"column_name": name, "data_type": "text", "nullable": True}
                for name in ("gap", "n", "x", "flag", "day", "at", "said")]  # fmt: skip
    assert await run(client, "noisy", output={"table": {"data_ddc": "u", "columns": declared}}) is True
    assert (await rpc(client, "dataset.record.get", citation_label="u"))[0]["n"] == "1"
    wrong = [{**each, "data_type": "int"} for each in declared]
    refused = await run(client, "noisy", output={"table": {"data_ddc": "v", "columns": wrong}})
    assert refused["code"] == -32005
    assert refused["data"]["type"] == "OutputRefused"


async def test_a_failure_keeps_nothing(client: httpx.AsyncClient, system: System) -> None:
    """Exit codes other than 0 are told, with the output in the log; outputs of a script that failed are not kept."""
    failed = await run(client, "fail")
    assert (failed["code"], failed["data"]["exit_code"]) == (-32005, 3)
    log = await rpc(client, "dataproc.get_log", run_id=failed["data"]["run_id"])
    assert log["text"] == "to the log\nand this\n"
    outputs = {"table": {"data_ddc": "t"}, "model": {"model_store_ddc": "s"}}
    half = await run(client, "half", output=outputs)
    assert half["data"]["exit_code"] == 1
    assert (await rpc(client, "dataset.get_columns", dataset_name="t"))["code"] == -32013
    assert (await rpc(client, "model_store.model.get_info", model_store_ddc="s"))["code"] == -32013
    killed = await run(client, "killed")
    assert (killed["code"], killed["data"]["exit_code"]) == (-32005, 137)
    assert await run(client, "quiet", output=outputs) is True
    assert left(system) == []


async def test_links_in_outputs_are_not_followed(client: httpx.AsyncClient, system: System) -> None:
    """What a link in output/ leads to is neither kept nor deleted, and the run says which file it was."""
    assert (await report(client))["session"] == 1
    refused = await run(client, "linked", output={"model": {"model_store_ddc": "s"}, "table": {"data_ddc": "t"}})
    assert refused["code"] == -32005
    assert "is a link" in refused["message"]
    whole = await run(client, "linked", output={"report": {"model_store_ddc": "s"}})
    assert "'report': report: is a link" in whole["message"]
    assert left(system) == []
    assert (await report(client))["session"] == 2


async def test_a_script_cannot_harm(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """It can change nothing that it was given, and write nowhere but in its tree and the folders it is told of."""
    await dataset(client)
    assert await run(client, "hurt", input={"table": {"data_ddc": "people"}}) is True
    assert await run(client, "leave") is True
    assert (
        await run(client, "copy", input={"table": {"data_ddc": "people"}}, output={"table": {"data_ddc": "c"}}) is True
    )
    assert len(await rpc(client, "dataset.record.get", citation_label="c")) == 3


async def test_a_large_data_set_is_handed_over_without_a_copy(client: httpx.AsyncClient, system: System) -> None:
    """The CSV of a state is made once, and linked; another state is another file, and the old one goes."""
    await dataset(client)
    tables = Path(system.settings.storage_url) / "renditions" / "tables"
    for _ in range(2):
        assert await run(client, "copy", input={"table": {"data_ddc": "people"}}) is True
    [made] = tables.glob("*/*/people.csv")
    kept = made.stat()
    assert await run(client, "copy", input={"table": {"data_ddc": "people"}}) is True
    assert made.stat().st_ino == kept.st_ino
    assert made.stat().st_mtime_ns == kept.st_mtime_ns
    await rpc(client, "dataset.delete", dataset_name="people")
    assert list(tables.glob("*/*")) == []


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"input": {"tabel": {"data_ddc": "people"}}}, -32602, "declared: table, other, model, anything"),
        ({"output": {"tables": {"data_ddc": "x"}}}, -32602, "declared: table, model, report"),
        ({"input": {"table": {"data_ddc": "ddc:nothing"}}}, -32013, "no data set 'nothing'"),
        ({"input": {"table": {"data_ddc": "x'; DROP TABLE datasets; --"}}}, -32602, "no name of the catalogue"),
        ({"input": {"model": {"model_store_ddc": "nothing"}}}, -32013, "no model store 'nothing'"),
        ({"input": {"table": {"data_ddc": "a", "path": "b"}}}, -32602, "one of them"),
        ({"input": {"table": {"ddc": "people"}}}, -32602, "no field of an input"),
        ({"input": {"table": "people"}}, -32602, "object"),
        ({"input": {"table": {"path": "../x"}}}, -32602, "without `..`"),
        ({"input": {"table": {"path": "missing.csv"}}}, -32005, "missing.csv"),
        ({"output": {"table": {"data_ddc": "t_1752026764.296948"}}}, -32602, "long form"),
    ],
    ids=str,
)
async def test_inputs_and_outputs_that_are_none(
    client: httpx.AsyncClient, given: dict[str, Any], code: int, said: str
) -> None:
    """Unknown names are refused naming the known ones, and what the catalogue has not is told before anything runs."""
    refused = await run(client, "copy", **given)
    assert refused["code"] == code, refused
    assert said in refused["message"]


async def test_an_input_that_is_required(client: httpx.AsyncClient) -> None:
    """One that the definition requires is asked for by name; one with an entry of its own need not be given."""
    refused = await run(client, "demand")
    assert refused["code"] == -32602
    assert refused["data"]["errors"][0]["loc"] == ["input", "table"]
    assert await run(client, "demand", input={"table": {"value": None}}) is True


async def test_a_condition_that_is_none(client: httpx.AsyncClient) -> None:
    """An unknown operator or column in `query` is refused at the input; one that selects nothing is not found."""
    made = await run(client, "write", input={"anything": {"value": 1}}, output={"model": {"model_store_ddc": "s"}})
    assert made is True, made
    for query, code in [
        ({"~": ["id", 1]}, -32602),
        ({"=": ["x; --", 1]}, -32602),
        ({"=": ["model_state", 20]}, -32013),
    ]:
        refused = await run(client, "look", input={"model": {"model_store_ddc": "s", "query": query}})
        assert refused["code"] == code, refused


async def test_another_owners_names_are_unknown(system: System, client: httpx.AsyncClient) -> None:
    """A data set of another key is not found, and scopes of the catalogue are asked for."""
    await dataset(client)
    async with a_caller(system) as other:
        asked = {"module": "tester", "method": "copy", "input": {"table": {"data_ddc": "people"}}}
        assert (await rpc(other, "dataproc.exec", **asked))["code"] == -32013
    async with a_caller(system, scopes=["session.open", "dataproc.exec"]) as narrow:
        refused = await rpc(narrow, "dataproc.exec", **asked)
        assert (refused["code"], refused["data"]["scope"]) == (-32002, "catalogue.read")


async def test_a_time_limit_ends_the_command_in_its_own_way(client: httpx.AsyncClient, system: System) -> None:
    """At the limit the command gets SIGTERM and may end; the caller is told of the limit."""
    refused = await run(client, "slow", timeout=2)
    assert refused["code"] == -32007
    [folder] = (Path(system.settings.storage_url) / "sessions").glob("*/*/modules/tester")
    assert {path.name for path in folder.iterdir()} == {"begun", "ended"}
    assert left(system) == []


async def test_names_and_description(client: httpx.AsyncClient, system: System) -> None:
    """The folder's name in any spelling and the definition's name are the module; both sides are described."""
    for name in ("tester", "TESTER", "org.example.tester"):
        assert await rpc(client, "dataproc.exec", module=name, method="quiet") is True
    told = await rpc(client, "dataproc.describe_module", module="tester")
    look = next(method for method in told["methods"] if method["name"] == "look")
    assert look["input"] == ["table", "other", "model", "anything"]
    assert look["output"] == ["table", "model", "report"]
    assert look["params"]["type"] == "object"
    assert look["result"] == {"const": True}
    assert look["definitions"]["output"]["model"]["model_kind"] == "k"
    missing = await rpc(client, "dataproc.exec", module="tester", method="nothing")
    assert missing["code"] == -32004


async def test_a_changed_module_is_picked_up(client: httpx.AsyncClient, system: System, tmp_path: Path) -> None:
    """A definition that breaks leaves the old one in force; a whole one takes its place."""
    assert await run(client, "quiet") is True
    file = tmp_path / "modules" / "tester" / "src" / "definitions" / "definition.json"
    whole = file.read_text()
    file.write_text("{")
    await system.registry.refresh()
    assert await run(client, "quiet") is True
    file.write_text(whole.replace('"quiet"', '"silent"'))
    shutil.copy(tmp_path / "modules/tester/src/quiet.sh", tmp_path / "modules/tester/src/silent.sh")
    await system.registry.refresh()
    assert await run(client, "silent") is True
    assert (await run(client, "quiet"))["code"] == -32004


async def test_what_a_crash_left_is_swept(tmp_path: Path) -> None:
    """Trees of an earlier life of the node are deleted at the start, and what their links lead to is not."""
    install(tmp_path)
    async with a_system(tmp_path) as system, a_caller(system) as client:
        session = (await open_session(client))["session_id"]
        top = tmp_path / "storage" / "sessions" / session[:2] / session
        await rpc(client, "dataproc.exec", module="tester", method="quiet")
        node = system.node.name
    precious = tmp_path / "precious"
    precious.write_text("x")
    for place in ("modules/.runs", "given"):
        run_left = top / place / f"{node}.0123456789ab" / "tester" / "run-1"
        run_left.mkdir(parents=True)
        os.symlink(tmp_path, run_left / "session")
    async with a_system(tmp_path) as again:
        await again.workspaces.settle()
        assert list(top.glob("*/.runs/*")) == list(top.glob("given/*")) == []
    assert precious.read_text() == "x"
