"""The shipped modules, as a worker calls them, on a real folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dataproc.module import Context, Module, Raised, Refused, Returned, load

ROOT = Path(__file__).parents[2]
WEATHER = ROOT / "examples" / "data" / "seattle-weather.csv"
CALLS = """
import sys
from pathlib import Path
from dataproc.module import Context, load
module, context = load("folder", sys.argv[1], "test-module"), Context(Path(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    for method in ("session-test", "append"):
        print(module.invoke(method, context, {}).payload.decode())
"""

Call = Callable[..., Any]


@pytest.fixture
def _imports_undone() -> Iterator[None]:
    """`load` is meant for one module a process."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(ROOT / "modules")):
            del sys.modules[name]


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """A session directory with the weather of Seattle in it."""
    (tmp_path / "session").mkdir()
    shutil.copy(WEATHER, tmp_path / "session" / "weather.csv")
    return tmp_path / "session"


@pytest.fixture
def tabular(_imports_undone: None, session: Path, tmp_path: Path) -> Iterator[Call]:
    """Calls a method of tabular: its result, or the reply that is no result."""
    module: Module = load("folder", str(ROOT / "modules" / "tabular"), "tabular")
    (tmp_path / "work").mkdir()
    ctx = Context(session, work=tmp_path / "work")

    def call(method: str, **params: Any) -> Any:
        reply = module.invoke(method, ctx, params)
        return json.loads(reply.payload) if isinstance(reply, Returned) else reply

    yield call
    if (connection := ctx.cache.get("duckdb")) is not None:
        connection.close()


@pytest.mark.usefixtures("_imports_undone")
def test_the_second_call_finds_the_firsts_artifact(tmp_path: Path) -> None:
    """Each call leaves one more file, counts, and lists."""
    module = load("folder", str(ROOT / "modules" / "test-module"), "test-module")
    replies = [module.invoke("session-test", Context(tmp_path), {"newest": 2}) for _ in range(3)]
    assert json.loads(replies[-1].payload) == {  # type: ignore[union-attr]
        "count": 3,
        "artifacts": ["test-module/artifact-00000002.txt", "test-module/artifact-00000003.txt"],
    }
    assert (tmp_path / "test-module" / "artifact-00000003.txt").read_text() == "left by call 3\n"


def test_calls_at_once_lose_nothing(tmp_path: Path) -> None:
    """Processes that call together get each count once, and every artifact is there."""

    def process(_: int) -> str:
        command = [sys.executable, "-c", CALLS, str(ROOT / "modules" / "test-module"), str(tmp_path), "50"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(4) as threads:
        lines = [json.loads(line) for out in threads.map(process, range(4)) for line in out.splitlines()]
    assert sorted(line["count"] for line in lines if isinstance(line, dict)) == list(range(1, 201))
    assert sorted(line for line in lines if isinstance(line, int)) == list(range(1, 201))
    assert len(list((tmp_path / "test-module").glob("artifact-*.txt"))) == 200


def test_load_shows_types_and_writes_parquet(tabular: Call, session: Path) -> None:
    """A CSV's types are inferred, changed where asked, and kept in Parquet."""
    shown = tabular("load", file="weather.csv", sample=1)
    assert shown["rows"] == 1461
    assert shown["columns"][0] == {"name": "date", "type": "DATE"}
    assert shown["sample"] == [["2012-01-01", 0.0, 12.8, 5.0, 4.7, "drizzle"]]
    tabular("load", file="weather", into="typed/weather.parquet", types={"wind": "DECIMAL(6,1)"})
    assert (session / "typed" / "weather.parquet").read_bytes()[:4] == b"PAR1"
    kinds = {column["name"]: column["type"] for column in tabular("load", file="typed/weather.parquet")["columns"]}
    assert (kinds["date"], kinds["wind"]) == ("DATE", "DECIMAL(6,1)")


def test_profile_tells_of_each_column(tabular: Call) -> None:
    """Numbers that are known of this table."""
    told = tabular("profile", file="weather.csv", columns=["temp_max", "weather"], top=1)
    temperature, weather = told["columns"]
    assert (temperature["min"], temperature["max"], temperature["nulls"]) == (-1.6, 35.6, 0)
    assert temperature["mean"] == pytest.approx(16.439, abs=0.001)
    assert temperature["quantiles"]["0.5"] == 15.6
    assert (weather["distinct"], weather["top"]) == (5, [{"value": "sun", "count": 714}])


@pytest.mark.parametrize("table", ["weather", "'weather.csv'", '"weather.csv"', "read_csv('weather.csv')"])
def test_sql_knows_files_by_stem_and_by_name(tabular: Call, table: str) -> None:
    """However a file is written in a query, it is the session's file."""
    answer = tabular("sql", query=f"SELECT count(*) AS days, max(date) AS last FROM {table};")
    assert answer == {
        "columns": [{"name": "days", "type": "BIGINT"}, {"name": "last", "type": "DATE"}],
        "rows": [[1461, "2015-12-31"]],
        "truncated": False,
    }


def test_sql_limits_its_answer_and_writes_all_to_a_file(tabular: Call, session: Path) -> None:
    """The answer is cut and says so; the file has every row."""
    answer = tabular("sql", query="SELECT date, temp_max FROM weather ORDER BY temp_max DESC", limit=1, into="hot.csv")
    assert (answer["rows"], answer["truncated"]) == ([["2014-08-11", 35.6]], True)
    assert (answer["into"], answer["written"]) == ("hot.csv", 1461)
    assert len((session / "hot.csv").read_text().splitlines()) == 1462


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1; SELECT 2", "one statement"),
        ("CREATE TABLE t (a INT)", "must be a query"),
        ("COPY (SELECT 1) TO 'x.csv'", "use `into`"),
        ("SELECT * FROM nowhere", "there is no table 'nowhere'; in the session there is: weather.csv"),
        ("SELECT * FROM '../outside.csv'", "outside.csv"),
        ("SELECT * FROM read_text('/etc/hostname')", "Permission"),
        ("SELEC 1", "syntax error"),
    ],
)
def test_sql_says_what_is_wrong(tabular: Call, session: Path, query: str, said: str) -> None:
    """One reading statement over the session's files, and nothing else; the next call works."""
    (session.parent / "outside.csv").write_text("secret\n1\n")
    reply = tabular("sql", query=query)
    assert isinstance(reply, Raised)
    assert said in reply.message
    assert str(session) not in reply.message
    assert tabular("sql", query="SELECT 1 AS one")["rows"] == [[1]]


def test_values_have_plain_forms(tabular: Call) -> None:
    """Decimals are numbers, times with a zone are UTC, binary is hexadecimal, NaN is null."""
    query = (
        "SELECT 1.5 AS d, TIMESTAMPTZ '2026-01-31 10:30:00+01' AS t, 'ab'::BLOB AS b, 'nan'::DOUBLE AS n, [1.5] AS l"
    )
    assert tabular("sql", query=query)["rows"] == [[1.5, "2026-01-31T09:30:00.000000Z", "6162", None, [1.5]]]


@pytest.mark.parametrize("into", ["w.parquet", "w.csv", "w.tsv", "w.json", "w.ndjson"])
def test_export_goes_there_and_back(tabular: Call, into: str) -> None:
    """Each format holds the same rows."""
    assert tabular("export", file="weather.csv", into=into)["rows"] == 1461
    assert tabular("sql", query=f"SELECT round(sum(wind), 1) FROM '{into}'")["rows"] == [[4735.3]]


@pytest.mark.parametrize(
    "params",
    [
        {"x": "date", "y": ["temp_max", "temp_min"], "title": "Seattle"},
        {"x": "temp_max", "kind": "hist"},
        {"x": "weather", "kind": "bar"},
        {"x": "weather", "y": "wind", "kind": "bar", "aggregate": "mean"},
        {"x": "temp_max", "y": "temp_min", "kind": "scatter"},
    ],
)
def test_plots_are_png(tabular: Call, session: Path, params: dict[str, Any]) -> None:
    """Every kind of chart is written as a PNG of some size."""
    answer = tabular("plot", file="weather.csv", into="charts/one.png", **params)
    assert (session / "charts" / "one.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert answer["size"] > 5_000


@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("load", {"file": "nowhere.csv"}, "there is no file 'nowhere.csv' in the session; there is: weather.csv"),
        ("load", {"file": "../outside.csv"}, "must be a path inside the session directory"),
        ("load", {"file": "weather.csv", "types": {"wind": "INT) FROM x; --"}}, "is no DuckDB type"),
        ("profile", {"file": "weather", "columns": ["wnid"]}, "there is no column 'wnid'; there is: date"),
        ("export", {"file": "weather", "into": "w.xlsx"}, "must end in one of .csv"),
        ("export", {"file": "weather", "into": "/etc/w.csv"}, "must be a path inside the session directory"),
        ("plot", {"file": "weather", "x": "date"}, "a line chart needs y"),
        ("plot", {"file": "weather", "x": "date", "y": "weather"}, "column 'weather' is VARCHAR"),
        ("plot", {"file": "weather", "x": "date", "kind": "hist"}, "column 'date' is DATE"),
    ],
)
def test_mistakes_are_told_kindly(tabular: Call, method: str, params: dict[str, Any], said: str) -> None:
    """The message says what there is instead."""
    reply = tabular(method, **params)
    assert isinstance(reply, Raised)
    assert said in reply.message


def test_a_failed_write_leaves_nothing(tabular: Call, session: Path) -> None:
    """A query that fails half-way leaves no file and no part of one."""
    reply = tabular("sql", query="SELECT CAST(weather AS INT) FROM weather", into="half.csv")
    assert isinstance(reply, Raised)
    assert [path.name for path in session.iterdir()] == ["weather.csv"]


def test_bounds_of_params_are_in_the_schema(tabular: Call) -> None:
    """More rows than can be answered are refused before anything runs."""
    assert isinstance(tabular("sql", query="SELECT 1", limit=10_001), Refused)


def test_columns_may_have_any_name_and_type(tabular: Call, session: Path) -> None:
    """Names that mean something in SQL or in our own queries, nested values, and times with a zone."""
    (session / "odd.json").write_text('[{"v": {"b": 1.5}, "n": [1, 2], "x": 1, "sel\\"ect": null}]')
    assert [column["nulls"] for column in tabular("profile", file="odd")["columns"]] == [0, 0, 0, 1]
    assert tabular("plot", file="odd", x="x", kind="hist")["points"] == 1
    tabular("sql", query="SELECT TIMESTAMPTZ '2026-01-31 10:30:00+01' AS v, 1 AS x", into="zone.parquet")
    assert tabular("profile", file="zone")["rows"] == 1
    assert tabular("plot", file="zone", x="v", y="x")["points"] == 1


def test_odd_names_of_files_are_names(tabular: Call, session: Path) -> None:
    """Quotes and signs that are patterns elsewhere stand for themselves."""
    for odd in ("it's.csv", "a[1]*.csv"):
        shutil.copy(WEATHER, session / odd)
        assert tabular("load", file=odd)["rows"] == 1461
