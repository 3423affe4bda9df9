"""The catalogue over HTTP: data sets, citations, records, conditions, model stores, and who may reach them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.factories import World, a_world, call, open_session, with_key, with_token

UPLOAD = "/api/v2/model_store/jsonrpc/upload/model_store.model.put"
PEOPLE: list[dict[str, Any]] = [
    {"column_name": "id", "data_type": "int"},
    {"column_name": "name", "data_type": "varchar"},
    {"column_name": "email", "data_type": "varchar", "nullable": True},
]
RECORDS = [[1, "石塚 洋次", "yoji@sample.example"], [2, "Yasuyuki", "kondo@test.example"], [3, "Maho", None]]
NASTY = ["'; DROP TABLE datasets; --", '" OR 1=1 --', "%' OR '1'='1", "x\\'y", "${jndi}", "a;b", "Robert'); --"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        yield made


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client(with_key(await world.key())) as made:
        yield made


async def result(client: httpx.AsyncClient, method: str, **params: Any) -> Any:
    """The result of a call."""
    answer = await call(client, method, params)
    assert "result" in answer, json.dumps(answer)
    return answer["result"]


async def error(client: httpx.AsyncClient, method: str, **params: Any) -> dict[str, Any]:
    """The error of a call."""
    answer = await call(client, method, params)
    assert "error" in answer, json.dumps(answer)
    return dict(answer["error"])


async def people(client: httpx.AsyncClient, name: str = "people", **more: Any) -> dict[str, Any]:
    """A data set with three records; its dataset_info."""
    info = await result(client, "dataset.create", dataset_name=name, columns=PEOPLE, key_columns=["id"], **more)
    assert await result(client, "dataset.record.put", dataset_name=name, records=RECORDS) == 3
    return dict(info)


async def ids(client: httpx.AsyncClient, condition: Any = None, label: str = "people", **more: Any) -> list[int]:
    """The ids of the records that match."""
    asked = {"citation_label": label, "condition": condition, **more}
    return [row["id"] for row in await result(client, "dataset.record.get", **asked)]


async def upload(client: httpx.AsyncClient, data: Any, content: bytes = b"weights") -> httpx.Response:
    """A model put as curl does it."""
    return await client.post(UPLOAD, data={"data": json.dumps(data)}, files={"file": ("model.dat", content)})


async def test_a_data_set_is_made_filled_and_read(client: httpx.AsyncClient) -> None:
    """The shapes are those of the reference: dataset_info, column_def with attnum, records as objects in order."""
    info = await people(client)
    assert set(info) == {
        "id", "session_id", "usename", "ddc_type", "short_form", "long_form", "realname", "created_at",
        "committed_at", "prepared_activity_id",
    }  # fmt: skip
    assert (info["short_form"], info["ddc_type"], info["session_id"]) == ("people", "table", None)
    assert info["created_at"]["_type"] == "datetime"
    columns = await result(client, "dataset.get_columns", dataset_name="ddc:people")
    assert columns[2] == {"column_name": "email", "data_type": "varchar", "nullable": True, "attnum": 3}
    rows = await result(client, "dataset.record.get", citation_label="people", columns=["id", "name"], order="-id")
    assert rows == [{"id": 3, "name": "Maho"}, {"id": 2, "name": "Yasuyuki"}, {"id": 1, "name": "石塚 洋次"}]
    assert await ids(client, order="id", offset=1, limit=1) == [2]
    assert await ids(client, label=info["long_form"]) == [1, 2, 3]
    assert await result(client, "dataset.delete", dataset_name="people") is True
    assert (await error(client, "dataset.get_columns", dataset_name="people"))["code"] == -32013


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ({"=": ["id", 2]}, [2]),
        ({"<>": ["id", 2]}, [1, 3]),
        ({"<": ["id", 2]}, [1]),
        ({"<=": ["id", 2]}, [1, 2]),
        ({">": ["id", 2]}, [3]),
        ({">=": ["id", 2]}, [2, 3]),
        ({"in": ["id", [1, 3, 9]]}, [1, 3]),
        ({"like": ["name", "Y%"]}, [2]),
        ({"is null": ["email"]}, [3]),
        ({"not": {"is null": ["email"]}}, [1, 2]),
        ({"not": [{"in": ["email", ["kondo@test.example"]]}]}, [1]),
        ({"and": [{">": ["id", 1]}, {"like": ["name", "%a%"]}]}, [2, 3]),
        ({"or": [{"=": ["id", 1]}, {"=": ["name", "Maho"]}]}, [1, 3]),
    ],
    ids=str,
)
async def test_conditions(client: httpx.AsyncClient, condition: Any, found: list[int]) -> None:
    """Every operator selects as in SQL; what is null is neither equal nor unequal to anything."""
    await people(client)
    assert await ids(client, condition) == found


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ({"==": ["id", 2]}, "no operator; there are: =, <>"),
        ({"= 1; DROP TABLE x": ["id", 2]}, "no operator"),
        ({"=": ["di", 2]}, "no column; there are: id, name, email"),
        ({"=": ["id; DROP TABLE datasets", 2]}, "no column"),
        ({"=": ["id", "2"]}, "no integer"),
        ({"=": ["email", None]}, "is null"),
        ({"=": ["id"]}, "takes 2 operands"),
        ({"=": ["id", 2], "<>": ["id", 3]}, "one operator"),
        ("id = 2", "one operator"),
        ({"and": []}, "at least one"),
        ({"like": ["id", "2%"]}, "text column"),
    ],
    ids=str,
)
async def test_conditions_that_are_none(client: httpx.AsyncClient, condition: Any, said: str) -> None:
    """An unknown operator or column, or a value of another type, is refused where it stands, naming what there is."""
    await people(client)
    refused = await error(client, "dataset.record.get", citation_label="people", condition=condition)
    assert refused["code"] == -32602
    assert said in refused["message"]
    assert refused["data"]["errors"][0]["loc"][0] == "condition"


@pytest.mark.parametrize("text", NASTY)
async def test_sql_in_every_string_is_a_string(client: httpx.AsyncClient, text: str) -> None:
    """As a value, a column's name, an order, a model's words: it is kept and found as it is, and runs nowhere."""
    columns = [{"column_name": "id", "data_type": "int"}, {"column_name": text, "data_type": "text"}]
    await result(client, "dataset.create", dataset_name="nasty", columns=columns)
    await result(client, "dataset.record.put", dataset_name="nasty", records=[[1, text], [2, "plain"]])
    assert await ids(client, {"=": [text, text]}, "nasty", order=f"-{text}") == [1]
    assert await ids(client, {"in": [text, [text]]}, "nasty") == [1]
    for method in ("dataset.create", "dataset.delete"):
        assert (await error(client, method, dataset_name=text, columns=columns) if "create" in method else
                await error(client, method, dataset_name=text))["code"] == -32602  # fmt: skip
    put = await upload(client, {"model_store_ddc": "ddc:store", "model_kind": text, "model_description": text})
    assert put.status_code == 200, put.text
    conds = {"and": [{"=": ["model_kind", text]}, {"in": ["model_description", [text]]}]}
    [info] = await result(client, "model_store.model.get_info", model_store_ddc="store", conds=conds)
    assert info["model_kind"] == text
    assert await ids(client, label="nasty") == [1, 2]


async def test_records_that_conflict(client: httpx.AsyncClient) -> None:
    """`error` puts nothing at all, `update` replaces, `nothing` skips; the number is of those registered or updated."""
    await people(client)
    more = [[4, "new", None], [2, "changed", None]]
    put = "dataset.record.put"
    refused = await error(client, put, dataset_name="people", records=more)
    assert refused["code"] == -32011
    assert "id=2" in refused["message"]
    assert await ids(client) == [1, 2, 3]
    assert await result(client, put, dataset_name="people", records=more, on_conflict="nothing") == 1
    assert await ids(client, {"=": ["name", "Yasuyuki"]}) == [2]
    assert await result(client, put, dataset_name="people", records=more, on_conflict="update") == 2
    assert await ids(client, {"=": ["name", "changed"]}) == [2]
    assert sorted(await ids(client)) == [1, 2, 3, 4]
    assert await result(client, "dataset.record.delete", dataset_name="people", condition={">": ["id", 2]}) == 2
    assert sorted(await ids(client)) == [1, 2]


@pytest.mark.parametrize(
    ("records", "place"),
    [
        ([[1, "a"]], ["records", 0]),
        ([[1, "a", None, None]], ["records", 0]),
        ([[1, "a", None], ["x", "b", None]], ["records", 1, 0]),
        ([[None, "a", None]], ["records", 0, 0]),
        ([[True, "a", None]], ["records", 0, 0]),
        ([[2**63, "a", None]], ["records", 0, 0]),
        ({"id": 1}, ["records"]),
    ],
    ids=str,
)
async def test_records_that_are_none(client: httpx.AsyncClient, records: Any, place: list[Any]) -> None:
    """A record of the wrong length, or a value that is none of its column's, is refused with its place."""
    await people(client)
    refused = await error(client, "dataset.record.put", dataset_name="people", records=records)
    assert refused["code"] == -32602
    assert refused["data"]["errors"][0]["loc"] == place


async def test_every_type_goes_in_and_out(client: httpx.AsyncClient) -> None:
    """Date-times are in the reference's own form, doubles and booleans as JSON has them, JSON as it is."""
    types = {
        "i": ("bigint", -(2**53)),
        "d": ("double", 0.25),
        "b": ("boolean", True),
        "t": ("varchar(3)", "abc"),
        "z": ("timestamp with time zone", {"_type": "datetime", "val": "2025-07-09T11:06:04.296948+09:00"}),
        "day": ("date", "2025-07-09"),
        "j": ("json", {"a": [1, None]}),
    }
    columns = [{"column_name": name, "data_type": kind} for name, (kind, _) in types.items()]
    await result(client, "dataset.create", dataset_name="all", columns=columns)
    await result(client, "dataset.record.put", dataset_name="all", records=[[value for _, value in types.values()]])
    [row] = await result(client, "dataset.record.get", citation_label="all")
    assert row.pop("z") == {"_type": "datetime", "val": "2025-07-09T02:06:04.296948+00:00"}
    assert row == {name: value for name, (_, value) in types.items() if name != "z"}
    later = {">": ["z", {"_type": "datetime", "val": "2025-07-09T02:06:04+00:00"}]}
    assert len(await result(client, "dataset.record.get", citation_label="all", condition=later)) == 1
    too_long = [[1, 1, True, "abcd", "2025-07-09T00:00:00Z", "2025-07-09", 1]]
    assert (
        "4 characters" in (await error(client, "dataset.record.put", dataset_name="all", records=too_long))["message"]
    )


@pytest.mark.parametrize(
    "columns",
    [
        [],
        "id int",
        [{"column_name": "a"}],
        [{"column_name": "a", "data_type": "int; DROP TABLE x"}],
        [{"column_name": "a", "data_type": "int"}, {"column_name": "a", "data_type": "int"}],
        [{"column_name": "", "data_type": "int"}],
        [{"column_name": "a", "data_type": "int", "attnum": 1}],
        [{"column_name": "a", "data_type": "int", "nullable": 1}],
    ],
    ids=str,
)
async def test_columns_that_are_none(client: httpx.AsyncClient, columns: Any) -> None:
    """A declaration that is none is refused as -32602."""
    refused = await error(client, "dataset.create", dataset_name="x", columns=columns)
    assert refused["code"] == -32602
    assert refused["data"]["errors"][0]["loc"][0] == "columns"


async def test_a_citation_keeps_what_it_cited(client: httpx.AsyncClient) -> None:
    """What is put, updated or deleted later does not change what is read under the label."""
    await people(client)
    info = await result(client, "dataset.citation.create", citation_label="before", source="people")
    assert (info["short_form"], info["dataset_name"]) == ("before", "people")
    await result(client, "dataset.record.delete", dataset_name="people", condition={"<": ["id", 3]})
    await result(client, "dataset.record.put", dataset_name="people", records=[[3, "x", None]], on_conflict="update")
    assert await ids(client, label="before") == [1, 2, 3]
    assert await ids(client) == [3]
    taken = await error(client, "dataset.citation.create", citation_label="people", source="people")
    assert taken["code"] == -32011
    assert await result(client, "dataset.citation.delete", citation_label="before") is True
    assert (await error(client, "dataset.record.get", citation_label="before"))["code"] == -32013


async def test_a_name_that_there_is(client: httpx.AsyncClient) -> None:
    """`dataset.create` of a name that exists is a conflict, and changes nothing."""
    await people(client)
    assert (await error(client, "dataset.create", dataset_name="ddc:people", columns=PEOPLE))["code"] == -32011
    assert await ids(client) == [1, 2, 3]


async def test_many_puts_are_one_data_set(client: httpx.AsyncClient, world: World) -> None:
    """Records put one by one stay in order, and their files do not become ever more."""
    await result(client, "dataset.create", dataset_name="log", columns=PEOPLE[:1])
    for number in range(40):
        await result(client, "dataset.record.put", dataset_name="log", records=[[number]])
    assert await ids(client, label="log") == list(range(40))
    async with world.client(with_key(await world.key())) as stranger:
        await people(stranger)
    found = await world.catalogue.datasets.resolve((await world.keys.list())[0].id, _ddc("log"))
    assert len(found.state.parts) < 32


def _ddc(name: str) -> Any:
    from dataproc.catalogue.names import read_ddc

    return read_ddc(name)


async def test_what_is_anothers_is_not_there(world: World) -> None:
    """Another key's data sets, citations and models are unknown by their names, until an administrator shares them;
    then they can be read, and nothing else.
    """
    owner, other = await world.key("owner"), await world.key("other")
    admin = await world.key("boss", scopes=["admin"])
    async with (
        world.client(with_key(owner)) as mine,
        world.client(with_key(other)) as theirs,
        world.client(with_key(admin)) as boss,
    ):
        await people(mine)
        assert (await upload(mine, {"model_store_ddc": "store"})).status_code == 200
        read = {"citation_label": "people"}
        calls: list[tuple[str, dict[str, Any]]] = [
            ("dataset.record.get", read),
            ("dataset.get_columns", {"dataset_name": "people"}),
            ("dataset.delete", {"dataset_name": "people"}),
            ("dataset.record.put", {"dataset_name": "people", "records": []}),
            ("dataset.record.delete", {"dataset_name": "people", "condition": {"=": ["id", 1]}}),
            ("dataset.citation.create", {"citation_label": "x", "source": "people"}),
            ("model_store.model.get_info", {"model_store_ddc": "store"}),
        ]
        for method, params in calls:
            assert (await error(theirs, method, **params))["code"] == -32013, method
        share = {"owner": "owner", "key": "other"}
        assert (await error(theirs, "dataset.share", dataset_name="people", **share))["code"] == -32002
        assert await result(boss, "dataset.share", dataset_name="people", **share) is True
        assert await result(boss, "model_store.share", model_store_ddc="ddc:store", **share) is True
        assert await ids(theirs) == [1, 2, 3]
        assert len(await result(theirs, "model_store.model.get_info", model_store_ddc="store")) == 1
        refused = await error(theirs, "dataset.record.put", dataset_name="people", records=[])
        assert refused["code"] == -32013
        await people(theirs)
        await result(theirs, "dataset.record.delete", dataset_name="people", condition={">": ["id", 0]})
        assert await ids(theirs) == []
        assert await ids(mine) == [1, 2, 3]
        await result(theirs, "dataset.delete", dataset_name="people")
        assert await result(boss, "dataset.unshare", dataset_name="people", **share) is True
        assert (await error(theirs, "dataset.record.get", **read))["code"] == -32013


async def test_scopes(world: World) -> None:
    """Reading needs `catalogue.read`, all else `catalogue.write`; a session's token carries them."""
    key = await world.key()
    reader = await world.key(scopes=["catalogue.read"])
    async with world.client(with_key(key)) as client, world.client(with_key(reader)) as reading:
        await people(client)
        calls: list[tuple[str, dict[str, Any]]] = [
            ("dataset.create", {"dataset_name": "x", "columns": PEOPLE}),
            ("dataset.record.put", {"dataset_name": "x", "records": []}),
        ]
        for method, params in calls:
            refused = await error(reading, method, **params)
            assert (refused["code"], refused["data"]["scope"]) == (-32002, "catalogue.write")
        refused_upload = await upload(reading, {"model_store_ddc": "store"})
        assert refused_upload.status_code == 403
        assert refused_upload.json()["error"]["data"]["scope"] == "catalogue.write"
        session = await open_session(client)
        async with world.client(with_token(session["access_token"])) as by_token:
            info = await result(by_token, "dataset.create", dataset_name="y", columns=PEOPLE)
            assert info["session_id"] == session["session_id"]
    async with world.client() as nobody:
        assert (await upload(nobody, {})).status_code == 401


async def test_a_model_is_put_and_found(client: httpx.AsyncClient, world: World) -> None:
    """The upload answers the bare model_info; the file is in the store as it was sent."""
    data = {
        "model_store_ddc": "my_store",
        "model_kind": "my_model",
        "model_description": "a sample",
        "model_meta": {"loss": 0.125},
    }
    put = await upload(client, data, b"weights")
    info = put.json()
    assert put.status_code == 200, put.text
    assert set(info) == {
        "start_datetime", "end_datetime", "location", "tenant_id", "model_id", "model_kind", "model_description",
        "model_meta", "model_state", "model_hash", "model_size", "round", "hop_count",
    }  # fmt: skip
    assert info["model_hash"] == hashlib.md5(b"weights").hexdigest()
    assert (info["model_state"], info["model_size"], info["model_meta"]) == (10, 7, {"loss": 0.125})
    assert info["start_datetime"]["_type"] == "datetime"
    [file] = (world.folder / "storage" / "models").glob(f"*/my_store/{info['model_id']}/model")
    assert file.read_bytes() == b"weights"
    second = (await upload(client, {**data, "model_kind": "other"})).json()
    get = "model_store.model.get_info"
    newest = await result(client, get, model_store_ddc="ddc:my_store", order="-start_datetime", limit=1)
    assert newest == [second]
    conds = {"and": [{"=": ["model_state", 10]}, {"<=": ["start_datetime", info["start_datetime"]]}]}
    assert await result(client, get, model_store_ddc="my_store", conds=conds) == [info]
    assert await result(client, get, model_store_ddc="my_store", conds={"=": ["model_state", 20]}) == []
    assert (await error(client, get, model_store_ddc="nothing"))["code"] == -32013
    assert "no column" in (await error(client, get, model_store_ddc="my_store", order="-x"))["message"]


async def test_uploads_that_are_none(client: httpx.AsyncClient) -> None:
    """What is no multipart, lacks a part, is no JSON or names nothing is refused with a status and what is wrong."""
    url, file = UPLOAD, {"file": ("m", b"x")}
    plain = await client.post(url, json={})
    assert (plain.status_code, plain.json()["error"]["code"]) == (400, -32600)
    for sent, where in [
        ({"data": {"data": "{}"}, "files": None}, None),
        ({"data": {"data": json.dumps({"model_store_ddc": "s"})}, "files": {"other": ("m", b"x")}}, "file"),
        ({"data": {}, "files": file}, "data"),
        ({"data": {"data": "{"}, "files": file}, "data"),
        ({"data": {"data": "[]"}, "files": file}, "data"),
        ({"data": {"data": "{}"}, "files": file}, "model_store_ddc"),
        ({"data": {"data": json.dumps({"model_store_ddc": "../x"})}, "files": file}, "model_store_ddc"),
        ({"data": {"data": json.dumps({"model_store_ddc": "s", "model_meta": 1})}, "files": file}, "model_meta"),
        ({"data": {"data": json.dumps({"model_store_ddc": "s", "kind": 1})}, "files": file}, "kind"),
    ]:
        refused = await client.post(url, **sent)  # type: ignore[arg-type]
        assert refused.status_code == 400, refused.text
        if where is not None:
            assert refused.json()["error"]["data"]["errors"][0]["loc"] == [where]


async def test_an_upload_above_the_limit(tmp_path: Path) -> None:
    """It is refused as 413, and nothing of it is in the store."""
    async with a_world(tmp_path, model_limit=2**16) as world, world.client(with_key(await world.key())) as client:
        refused = await upload(client, {"model_store_ddc": "s"}, b"x" * 2**17)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, -32015)
        assert not (tmp_path / "storage" / "models").exists()


async def test_the_catalogue_is_described(client: httpx.AsyncClient) -> None:
    """`rpc.discover` of each endpoint shows its methods."""
    for method, path in [("dataset.record.get", "dataset"), ("model_store.model.get_info", "model_store")]:
        answer = await call(client, "rpc.discover", path=f"/api/v2/{path}/jsonrpc")
        assert method in [each["name"] for each in answer["result"]["methods"]]
