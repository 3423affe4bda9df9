"""The REST facade over HTTP, by a client that knows the public facts alone."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import Table, update

from dataproc.access import NewKey
from dataproc.composition import System, build
from dataproc.database.tables import sessions, user_tokens
from dataproc.web.app import create_app
from tests.factories import a_settings, an_exec, call, open_session, with_key, with_token

REPOSITORY = Path(__file__).parents[2]
BASE = "/cra/ServiceGateway/Services"
FRUIT = "/products/tables/views/fruit"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class House:
    """A whole server in this process."""

    system: System
    client: httpx.AsyncClient
    folder: Path
    keys: list[NewKey] = field(default_factory=list)

    async def key(self, name: str = "a", **chosen: Any) -> NewKey:
        self.keys.append(await self.system.keys.create(name, **chosen))
        return self.keys[-1]

    async def clear(self) -> None:
        """End every session of the keys that were made."""
        for key in self.keys:
            await self.system.keys.revoke(key.id)
        self.keys.clear()
        while await self.system.sessions.due(1):
            await self.system.reaper.look()
            await self.system.reaper.settle()

    async def user(self, name: str = "a", **chosen: Any) -> User:
        """Somebody with a key, logged on."""
        key = await self.key(name, **chosen)
        answer = await self.client.post(f"{BASE}/DATAPROC/Logon", data={"username": key.apikey, "password": key.secret})
        assert answer.status_code == 200, answer.text
        return User(self.client, answer.json()["userToken"], key)

    def sessions(self) -> list[str]:
        """Ids of the session folders on disk."""
        return sorted(path.name for path in (self.folder / "storage" / "sessions").glob("*/*"))


@dataclass
class User:
    """A client with a user token."""

    client: httpx.AsyncClient
    token: str
    key: NewKey

    async def send(
        self, path: str = "", *, method: str = "GET", headers: Mapping[str, str] | None = None, **query: Any
    ) -> httpx.Response:
        sent = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        return await self.client.request(method, f"{BASE}/DATAPROC{path}", params=query or None, headers=sent)

    async def data(self, view: str = "fruit", session: str | None = None, **query: Any) -> Any:
        """The rows of a view."""
        headers = {} if session is None else {"session": session}
        answer = await self.send(f"/products/tables/views/{view}/data", headers=headers, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def kept(self) -> str:
        """A session that stays."""
        return str((await self.data(close="false"))["session"])


@asynccontextmanager
async def a_house(folder: Path, **chosen: Any) -> AsyncIterator[House]:
    modules = folder / "modules"
    shutil.copytree(REPOSITORY / "tests" / "modules" / "tables", modules / "tables")
    shutil.copytree(REPOSITORY / "modules" / "tabular", modules / "tabular")
    shutil.copytree(REPOSITORY / "tests" / "modules" / "echo", modules / "echo")
    system = await build(a_settings(folder, **{"sandbox": "auto", **chosen}))
    app = create_app(system)
    await system.start()
    try:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, client=("127.0.0.1", 40000))
            async with httpx.AsyncClient(transport=transport, base_url="http://dataproc:8000", timeout=60) as client:
                yield House(system, client, folder)
    finally:
        await system.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with a_house(tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def house(shared: House) -> AsyncIterator[House]:
    """The module's server, in which nothing is left of the tests before."""
    yield shared
    await shared.clear()


@pytest_asyncio.fixture(loop_scope="module")
async def user(house: House) -> User:
    return await house.user()


def names(page: Any) -> list[str]:
    return [row["name"].split()[0] for row in page["Rows"]]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_services_are_told_to_everybody(house: House, method: str) -> None:
    """Without a token, all in strings."""
    answer = await house.client.request(method, "/cra/serviceGateway/services")
    assert answer.status_code == 200
    (service,) = answer.json()
    assert service.keys() == {"HOSTIP", "STATUS", "PORT", "WEBSERVICEName", "TLS", "TYPE", "HOSTCN"}
    assert all(type(value) is str for value in service.values())
    assert (service["STATUS"], service["TLS"], service["WEBSERVICEName"]) == ("ACTIVE", "N", "DATAPROC")


async def test_tls_is_that_of_the_public_address(tmp_path: Path) -> None:
    """Clients meet the proxy, not this server; and the service has the name that was set."""
    async with a_house(tmp_path, public_url="https://data.example.org", cra_service="CRA1") as house:
        (service,) = (await house.client.get(BASE)).json()
        assert (service["TLS"], service["HOSTCN"], service["PORT"]) == ("Y", "data.example.org", "443")
        assert (service["WEBSERVICEName"], service["HOSTIP"]) == ("CRA1", "data.example.org")
        key = await house.key()
        login = {"username": key.apikey, "password": key.secret}
        assert (await house.client.post(f"{BASE}/CRA1/Logon", data=login)).status_code == 200
        assert (await house.client.post(f"{BASE}/DATAPROC/Logon", data=login)).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/cra/ServiceGateway/Services/DATAPROC/Logon",
        "/cra/servicegateway/services/DATAPROC/login",
        "/CRA/SERVICEGATEWAY/SERVICES/dataproc/LOGON",
        "/cra/serviceGateway/services/Login",
        "/cra/serviceGateway/services/logon/",
    ],
)
async def test_logging_on_in_any_spelling(house: House, path: str) -> None:
    """Base path and the words match in any case, the service may be left out, the body is a form or JSON."""
    key = await house.key()
    login = {"username": key.apikey, "password": key.secret}
    for body in ({"data": login}, {"json": login}):
        answer = await house.client.post(path, **body)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == {"userToken"}


@pytest.mark.parametrize(
    "body", [{}, {"json": {}}, {"data": {"username": "x", "password": "y"}}, {"json": {"username": "x"}}]
)
async def test_logging_on_wrongly(house: House, body: Any) -> None:
    """401 and a message, also for the empty object that means a certificate elsewhere."""
    answer = await house.client.post(f"{BASE}/DATAPROC/Logon", **body)
    assert answer.status_code == 401
    assert answer.json()["rc"] == 8
    assert answer.json()["messages"]
    assert "www-authenticate" in answer.headers


async def test_a_body_that_cannot_be_read(house: House) -> None:
    """Told as such, not as wrong credentials."""
    path = f"{BASE}/DATAPROC/Logon"
    sent = {"Content-Type": "application/json"}
    for answer in (
        await house.client.post(path, files={"username": b"x"}),
        await house.client.post(path, content=b"[1]", headers=sent),
        await house.client.post(path, content=b"{", headers=sent),
        await house.client.post(path, content=b"{" * 60_000, headers=sent),
    ):
        assert (answer.status_code, answer.json()["rc"]) == (400, 8)
    assert (await house.client.post(path, content=b"x" * 70_000)).status_code == 413


async def test_a_wrong_secret_and_a_revoked_key(house: House, user: User) -> None:
    """A wrong secret opens nothing; a key that is revoked takes its user tokens along."""
    login = {"username": user.key.apikey, "password": "wrong"}
    assert (await house.client.post(f"{BASE}/DATAPROC/Logon", data=login)).status_code == 401
    session = await user.kept()
    await house.system.keys.revoke(user.key.id)
    assert (await user.send("/products")).status_code == 401
    assert (await user.send("/keepalive", session=session)).status_code == 401


@pytest.mark.parametrize("token", [None, "no-token", ""])
async def test_every_path_needs_a_user_token(house: House, user: User, token: str | None) -> None:
    """But the list of services and Logon."""
    sent = {} if token is None else {"Authorization": f"Bearer {token}"}
    paths = ["/products", "/products/tables/views", f"{FRUIT}/definition", f"{FRUIT}/data", "/keepalive", "?close=true"]
    for path in [*paths, "/products/tables/systems"]:
        answer = await house.client.get(f"{BASE}/DATAPROC{path}", headers=sent)
        assert (answer.status_code, answer.json()["rc"]) == (401, 8), path
    for path in ("/getView?product=tables&view=fruit", "/getData?product=tables&view=fruit", "/Logoff"):
        answer = await house.client.post(f"{BASE}/DATAPROC{path}", data={} if token is None else {"userToken": token})
        assert answer.status_code == 401, path


async def test_tokens_of_both_worlds_do_not_mix(house: House, user: User) -> None:
    """A session's token logs nobody on, and a user token is no session's."""
    async with httpx.AsyncClient(transport=house.client._transport, base_url="http://x") as other:
        other.headers.update(with_key(user.key))
        opened = await open_session(other)
    sent = {"Authorization": f"Bearer {opened['access_token']}"}
    assert (await house.client.get(f"{BASE}/DATAPROC/products", headers=sent)).status_code == 401
    refused = await house.client.post("/api/v1/dataproc/jsonrpc", json=an_exec(), headers=with_token(user.token))
    assert refused.status_code == 401


async def test_products_and_views(user: User) -> None:
    """Modules with views, and of those the views alone."""
    products = (await user.send("/products")).json()
    assert {each["productName"] for each in products} == {"tables", "tabular"}
    assert all(each.keys() == {"productName", "description"} for each in products)
    views = (await user.send("/products/tables/views")).json()
    assert {"viewName": "fruit", "description": "Four kinds of fruit."} in views
    assert "no_view" not in {each["viewName"] for each in views}
    assert (await user.send("/products/echo/views")).status_code == 404
    assert (await user.send("/products/nothing/views")).status_code == 404


async def test_what_one_may_not_run_one_does_not_see(house: House) -> None:
    """Products and views are those of the key's grants."""
    user = await house.user(grants=["dataproc.exec:tables.fruit"])
    assert [each["productName"] for each in (await user.send("/products")).json()] == ["tables"]
    assert [each["viewName"] for each in (await user.send("/products/tables/views")).json()] == ["fruit"]
    assert (await user.send("/products/tables/views/gaps/data")).status_code == 403
    assert (await user.data())["numRows"] == 4


async def test_a_key_that_opens_no_sessions_logs_nobody_on(house: House) -> None:
    """A user token opens sessions, so its key has to be able to."""
    key = await house.key(scopes=["dataproc.exec"])
    login = {"username": key.apikey, "password": key.secret}
    assert (await house.client.post(f"{BASE}/DATAPROC/Logon", data=login)).status_code == 403


async def test_the_definition_of_a_view(house: House, user: User) -> None:
    """From what the method declares, or else from its rows; the id is the letter used to sort."""
    found = (await user.send(f"{FRUIT}/definition")).json()
    assert (found["productName"], found["viewName"], found["description"]) == (
        "tables",
        "fruit",
        "Four kinds of fruit.",
    )
    assert [column["id"] for column in found["columns"]] == ["A", "B", "C"]
    assert [column["field"] for column in found["columns"]] == ["name", "price", "stock"]
    assert [column["fieldtype"] for column in found["columns"]] == ["STRING", "DOUBLE", "INTEGER"]
    assert found["columns"][0].keys() == {"id", "field", "visible", "header", "fieldtype", "disptype"}
    assert found["columns"][0]["header"] == ["name"]
    gaps = (await user.send("/products/tables/views/gaps/definition", close="false")).json()
    assert [column["field"] for column in gaps["columns"]] == ["value", "other"]
    assert house.sessions() == []
    needy = (await user.send("/products/tables/views/large/definition")).json()
    assert needy["columns"] == []


async def test_data_in_a_session_that_ends_with_it(house: House, user: User) -> None:
    """A call without a session opens one, which is over when the reply is there."""
    page = await user.data()
    assert {name: page[name] for name in ("rc", "viewName", "startRow", "numRows", "totalRowCount")} == {
        "rc": 0,
        "viewName": "fruit",
        "startRow": 1,
        "numRows": 4,
        "totalRowCount": 4,
    }
    assert names(page) == ["apple", "pear", "plum", "cherry"]
    assert page["Rows"][2] == {"name": "plum", "price": None, "stock": 10}
    assert house.sessions() == []
    assert (await user.send("/keepalive", session=page["session"])).status_code == 404


async def test_the_weather_needs_no_upload(user: User) -> None:
    """`tabular` has a view of real data, with a definition, at once."""
    path = "/products/tabular/views/weather"
    kinds = {each["field"]: each["fieldtype"] for each in (await user.send(f"{path}/definition")).json()["columns"]}
    assert kinds["date"] == "DATE"
    page = (await user.send(f"{path}/data", numRows=2, sort="C.D", filter="weather=s*")).json()
    assert page["numRows"] == 2
    assert page["totalRowCount"] == 737  # sun and snow
    year = (await user.send(f"{path}/data", period="2012", numRows=0)).json()
    assert (year["totalRowCount"], year["Rows"]) == (366, [])


async def test_rows_of_a_file_of_the_session(house: House, user: User) -> None:
    """`tabular.rows` shows a file that came by another door into the same session; columns as a list."""
    session = await user.kept()
    async with httpx.AsyncClient(transport=house.client._transport, base_url="http://x") as other:
        other.headers.update(with_key(user.key))
        issued = (await call(other, "session.issue_token", {"session_id": session}))["result"]
        put = await other.put(
            "/api/v1/dataproc/files/t.csv",
            content=b"a,b,c\n1,2,x\n3,4,y\n",
            headers=with_token(issued["access_token"]),
        )
        assert put.status_code == 201, put.text
    sent = {"session": session}
    answer = await user.send("/products/tabular/views/rows/data", headers=sent, file="t.csv", columns="c,a", sort="B.D")
    assert answer.json()["Rows"] == [{"c": "y", "a": 3}, {"c": "x", "a": 1}]


async def test_a_session_is_kept_and_used_again(house: House, user: User) -> None:
    """`close=false` keeps it; header, other header and parameter name it; `close=true` ends it after the reply."""
    first = await user.data("counted", close="false")
    session = first["session"]
    assert first["Rows"] == [{"runs": 1, "row": 0}]
    for headers, query in (({"session": session}, {}), ({"sessionId": session}, {}), ({}, {"session": session})):
        answer = await user.send("/products/tables/views/counted/data", headers=headers, **query)
        assert answer.json()["session"] == session
        assert answer.headers["xdata-session-id"] == session
        assert answer.json()["Rows"] == first["Rows"]
    last = await user.data("counted", session, close="true")
    assert last["Rows"] == first["Rows"]
    assert (await user.send("/products/tables/views/counted/data", headers={"session": session})).status_code == 404


async def test_refresh_runs_again_and_nothing_else_does(user: User) -> None:
    """Kept rows are served until `refresh=Y`; other params are another view."""
    session = await user.kept()

    async def runs(**query: Any) -> int:
        return int((await user.data("counted", session, **query))["Rows"][0]["runs"])

    assert [await runs(), await runs(), await runs(refresh="N"), await runs(refresh="Y"), await runs()] == [
        1,
        1,
        1,
        2,
        2,
    ]
    assert await runs(times=5) == 3
    assert await runs() == 2


async def test_calls_at_once_share_a_run(user: User) -> None:
    """Pages that are asked for at once wait for the one run of the view."""
    session = await user.kept()
    pages = await asyncio.gather(*(user.data("counted", session) for _ in range(5)))
    assert {page["Rows"][0]["runs"] for page in pages} == {1}


async def test_pages(user: User) -> None:
    """By `startRow`, counted from 1, and `numRows`; what lies beyond the end is empty."""
    assert names(await user.data(startRow=2, numRows=2)) == ["pear", "plum"]
    assert names(await user.data(startRow=4, numRows=10)) == ["cherry"]
    beyond = await user.data(startRow=5)
    assert (beyond["rc"], beyond["startRow"], beyond["numRows"], beyond["totalRowCount"]) == (0, 5, 0, 4)


@pytest.mark.parametrize(
    "query", [{"startRow": 0}, {"startRow": "x"}, {"numRows": -1}, {"sort": "Z.A"}, {"sort": "A.X"}, {"close": "maybe"},
              {"sort": "A.A&B.A&C.A&A.D&B.D"}, {"filter": "nothing=1"}, {"filter": "name"}, {"refresh": "perhaps"}]
)  # fmt: skip
async def test_parameters_that_make_no_sense(house: House, user: User, query: Any) -> None:
    """400 with messages and no data, and no session is left."""
    answer = await user.send(f"{FRUIT}/data", **query)
    assert answer.status_code == 400
    assert answer.json()["rc"] == 8
    assert "Rows" not in answer.json()
    assert await house.system.sessions.count() in ({"open": 0, "closing": 0}, {"open": 0, "closing": 0, "ended": 1})


async def test_sorting(user: User) -> None:
    """By letters, each way, up to four; null comes last; rows that are equal stay in their order."""
    assert names(await user.data(sort="A.D")) == ["plum", "pear", "cherry", "apple"]
    assert names(await user.data(sort="B.A")) == ["apple", "pear", "cherry", "plum"]
    assert names(await user.data(sort="C.D&B.A")) == ["apple", "plum", "cherry", "pear"]
    assert names(await user.data(sort="C.A")) == ["pear", "cherry", "apple", "plum"]


async def test_filtering(user: User) -> None:
    """By name; `*` is a wildcard; all conditions hold; numbers by value; text may hold anything."""
    assert names(await user.data(filter="name=p*")) == ["pear", "plum"]
    assert names(await user.data(filter="name=p*&stock=10")) == ["plum"]
    assert names(await user.data(filter="name=*e*r*")) == ["pear", "cherry"]
    assert names(await user.data(filter="price=2")) == ["pear"]
    assert names(await user.data(filter="price=")) == ["plum"]
    assert names(await user.data(filter='name=*"sweet"*')) == ["cherry"]
    assert names(await user.data(filter="name=*n")) == ["cherry"]
    assert names(await user.data(filter="name=PEAR")) == []
    assert names(await user.data(filter="name=*p*", sort="A.D", startRow=2, numRows=1)) == ["pear"]


async def test_a_query_within_a_query_that_was_not_encoded(house: House, user: User) -> None:
    """`?sort=A.D&B.A` and `?filter=COL=x&COL2=S*` are understood as they stand in the documentation."""
    sent = {"Authorization": f"Bearer {user.token}"}
    raw = await house.client.get(f"{BASE}/DATAPROC{FRUIT}/data?sort=C.D&B.A&numRows=2", headers=sent)
    assert names(raw.json()) == ["apple", "plum"]
    raw = await house.client.get(f"{BASE}/DATAPROC{FRUIT}/data?filter=stock=10&name=p*&numRows=2", headers=sent)
    assert names(raw.json()) == ["plum"]


async def test_parameters_as_headers(user: User) -> None:
    """Every parameter may be a header instead."""
    answer = await user.send(f"{FRUIT}/data", headers={"startRow": "2", "numRows": "1", "sort": "A.D", "close": "N"})
    assert names(answer.json()) == ["pear"]
    assert (await user.send("/keepalive", headers={"session": answer.json()["session"]})).status_code == 200


async def test_what_a_method_declares_is_passed_to_it(user: User) -> None:
    """`context`, `server`, `system`, `scope` with `*` as default, and `period`."""
    row = (await user.data("said", server="s1", period="today"))["Rows"][0]
    assert row == {"context": "*", "server": "s1", "system": "*", "scope": "*", "period": "today"}


async def test_data_with_messages(user: User) -> None:
    """rc 4: data, and messages of the run or about a parameter that nobody knows; on later pages, too."""
    session = await user.kept()
    for _ in range(2):
        page = await user.data("gaps", session)
        assert page["rc"] == 4
        assert page["messages"]
        assert page["Rows"] == [
            {"value": 1.0, "other": None},
            {"value": None, "other": None},
            {"value": None, "other": True},
        ]
    page = await user.data(colour="red")
    assert (page["rc"], page["numRows"]) == (4, 4)


@pytest.mark.parametrize("view", ["broken", "no_table", "liar"])
async def test_views_that_fail(house: House, user: User, view: str) -> None:
    """rc 8 with messages and no data; the session that was opened for it is gone."""
    page = await user.data(view, close="false")
    assert page["rc"] == 8
    assert page["messages"]
    assert page.keys() == {"rc", "messages"}
    assert house.sessions() == []


async def test_a_view_above_the_limit_of_inline_results(house: House, user: User) -> None:
    """Views are not cut by the limit on results, and a large answer comes whole."""
    session = await user.kept()
    page = await user.data("large", session, rows=60_000, numRows=2, startRow=59_999)
    assert page["totalRowCount"] == 60_000
    assert [row["number"] for row in page["Rows"]] == [59_998, 59_999]
    whole = await user.data("large", session, rows=60_000, sort="C.A&A.D")
    assert whole["numRows"] == len(whole["Rows"]) == 60_000
    assert whole["Rows"][0]["number"] == 59_997
    async with house.system.workspaces.of(session).checkout() as tree:
        assert not list((tree.files / ".dataproc").rglob("*.json"))


async def test_a_session_belongs_to_one_user_token(house: House, user: User) -> None:
    """Of another token, also of the same key: 404 everywhere, and nothing changes."""
    session = await user.kept()
    login = {"username": user.key.apikey, "password": user.key.secret}
    second = User(house.client, (await house.client.post(f"{BASE}/Logon", data=login)).json()["userToken"], user.key)
    for other in (second, await house.user("b")):
        for path in (f"{FRUIT}/data", "/products/tables/views/gaps/definition", "/keepalive", "?close=true"):
            method = "DELETE" if "close" in path else "GET"
            answer = await other.send(path, method=method, headers={"session": session})
            assert answer.status_code == 404, path
        await other.send("?close=true")
    assert (await user.data("counted", session))["session"] == session


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_closing_one_session_or_all(user: User, method: str) -> None:
    """With the header that one, without it all of the token; the token lives on."""
    one, two, three = [await user.kept() for _ in range(3)]
    assert (await user.send("?close=true", method=method, headers={"session": one})).status_code == 200
    assert (await user.send("/keepalive", session=one)).status_code == 404
    assert (await user.send("/keepalive", session=two)).status_code == 200
    assert (await user.send("?close=Y", method=method)).status_code == 200
    for each in (two, three):
        assert (await user.send("/keepalive", session=each)).status_code == 404
    assert (await user.send("/keepalive")).status_code == 200


async def test_closing_has_to_be_said(user: User) -> None:
    """The bare address of the service closes nothing."""
    session = await user.kept()
    assert (await user.send(headers={"session": session})).status_code == 400
    assert (await user.send("/KeepAlive", session=session)).json()["rc"] == 0
    assert (await user.send(method="DELETE", headers={"session": session})).status_code == 200
    assert (await user.send("/keepalive", session=session)).status_code == 404


async def test_closing_by_a_form(house: House, user: User) -> None:
    """As the older calls, with the token in the form."""
    session = await user.kept()
    form = {"userToken": user.token, "close": "true"}
    answer = await house.client.post(f"{BASE}/DATAPROC", data=form, headers={"session": session})
    assert answer.status_code == 200
    assert (await user.send("/keepalive", session=session)).status_code == 404


async def test_empty_parameters_are_none(user: User) -> None:
    """A client may send every parameter it knows, most of them empty."""
    answer = await user.send(
        f"{FRUIT}/data", headers={"session": ""}, startRow="", numRows="", sort="", refresh="", close=""
    )
    assert (answer.status_code, answer.json()["numRows"]) == (200, 4)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/Logoff", "/DATAPROC/logoff"])
async def test_logging_off(house: House, user: User, path: str) -> None:
    """Ends the token and every session of it."""
    await user.kept()
    answer = await house.client.post(BASE + path, data={"userToken": user.token})
    assert answer.status_code == 200
    assert (await user.send("/products")).status_code == 401
    assert (await house.client.post(BASE + path, data={"userToken": user.token})).status_code == 401
    assert (await house.system.sessions.count())["open"] == 0


@pytest.mark.parametrize("call", ["getView", "getData", "getview"])
async def test_the_older_calls(house: House, user: User, call: str) -> None:
    """As `data`, with the token in the form and parameters in the address or the form."""
    address = f"{BASE}/DATAPROC/{call}?product=tables&view=fruit"
    answer = await house.client.post(address, data={"userToken": user.token, "numRows": "1", "sort": "A.D"})
    assert names(answer.json()) == ["plum"]
    answer = await house.client.post(f"{address}&numRows=2&close=N", data={"userToken": user.token})
    assert answer.json()["numRows"] == 2
    assert (await user.send("/keepalive", session=answer.json()["session"])).status_code == 200
    assert (await house.client.post(f"{BASE}/{call}", data={"userToken": user.token})).status_code == 400


async def test_systems(user: User) -> None:
    """This deployment is the one system of every product."""
    found = (await user.send("/products/tables/systems")).json()
    assert found.keys() == {"rc", "context", "rowCount", "totalRowCount", "startRow", "history", "systems"}
    assert (found["rc"], found["context"], found["rowCount"], len(found["systems"])) == (0, "*", 1, 1)


async def test_the_newer_generation_leaves_the_service_out(house: House, user: User) -> None:
    """`/cra/serviceGateway/services/products/…` is the same."""
    sent = {"Authorization": f"Bearer {user.token}"}
    answer = await house.client.get("/cra/serviceGateway/services/products/tables/views/fruit/data", headers=sent)
    assert answer.json()["numRows"] == 4
    assert (await house.client.get("/cra/serviceGateway/services/keepalive", headers=sent)).status_code == 200
    assert (await house.client.get("/cra/serviceGateway/services?close=true", headers=sent)).status_code == 200
    assert (await house.client.get(f"{BASE}/OTHER/products", headers=sent)).status_code == 404


async def test_open_sessions_are_limited_and_freed_at_once(tmp_path: Path) -> None:
    """Over the limit 429 with rc 8; closing one makes room in the same moment."""
    async with a_house(tmp_path, max_sessions_per_key=2) as house:
        user = await house.user()
        kept = [await user.kept() for _ in range(2)]
        for _ in range(2):
            refused = await user.send(f"{FRUIT}/data", close="false")
            assert (refused.status_code, refused.json()["rc"]) == (429, 8)
        await user.send("?close=true", headers={"session": kept[0]})
        assert await user.kept()


async def test_the_facade_stands_in_the_api_document(house: House) -> None:
    """As ordinary routes, with their parameters."""
    paths = (await house.client.get("/openapi.json")).json()["paths"]
    data = paths[BASE + "/{service}/products/{product}/views/{view}/data"]["get"]
    assert {"startRow", "numRows", "sort", "filter", "refresh", "close"} <= {
        each["name"] for each in data["parameters"]
    }
    assert "post" in paths[BASE + "/{service}/Logon"]


async def test_idle_clocks(tmp_path: Path) -> None:
    """A session that was idle too long is 404, a user token 401; but while a session lives, its token does."""
    async with a_house(tmp_path, credential_cache=0) as house:
        user = await house.user()

        async def idle(table: Table, **which: Any) -> None:
            """As if nothing had been done for as long as may be."""
            long_ago = update(table).values(idle_expires_at=1)
            for name, value in which.items():
                long_ago = long_ago.where(table.c[name] == value)
            await house.system.sessions.wind()
            await house.system.database.write(lambda connection: connection.execute(long_ago))

        one, two = await user.kept(), await user.kept()
        await idle(sessions, id=one)
        assert (await user.send("/keepalive", session=one)).status_code == 404
        assert (await user.send(f"{FRUIT}/data", headers={"session": one})).status_code == 404
        await idle(user_tokens)
        assert (await user.send("/keepalive", session=two)).status_code == 200
        await idle(user_tokens)
        await idle(sessions, id=two)
        refused = await user.send("/keepalive")
        assert (refused.status_code, refused.json()["rc"]) == (401, 8)
        assert (await user.send("/products")).status_code == 401


@pytest.mark.parametrize("by", ["close", "logoff"])
async def test_closing_during_a_run(tmp_path: Path, by: str) -> None:
    """The run is ended, its caller told, and nothing of the session stays; twice is 404 or 401, and no failure."""
    async with a_house(tmp_path, close_wait=0.2, run_grace=0.2) as house:
        user = await house.user()
        session = await user.kept()
        sent = {"session": session}
        running = asyncio.create_task(user.send("/products/tables/views/endless/data", headers=sent))
        async with asyncio.timeout(30):
            while not house.system.sessions.running(session):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0)
        paths = {"close": ("DELETE", ""), "logoff": ("POST", "/Logoff")}
        method, path = paths[by]
        assert (await user.send(path, method=method, headers=sent)).status_code == 200
        assert (await user.send(path, method=method, headers=sent)).status_code == (404 if by == "close" else 401)
        answer = await asyncio.wait_for(running, 30)
        assert answer.json()["rc"] == 8
        await house.system.reaper.settle()
        assert house.sessions() == []
