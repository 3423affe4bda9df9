"""The shipped module `tabular` where it makes tables of tables, in its sandbox, on real weather."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from dataproc.testing import RunFailed, RunMethod

ROOT = Path(__file__).parents[2]


@pytest.fixture
def module_folder() -> Path:
    """The module under test."""
    return ROOT / "modules" / "tabular"


@pytest.fixture
def tabular(run_method: RunMethod) -> RunMethod:
    """Methods of tabular, in a session with the weather and a list of kinds in it."""
    shutil.copy(ROOT / "examples" / "data" / "seattle-weather.csv", run_method.session / "weather.csv")
    (run_method.session / "kinds.csv").write_text("kind,wet,date\nrain,true,a\nsnow,true,b\nsun,false,c\nhail,true,d\n")
    return run_method


@pytest.mark.parametrize(
    ("how", "rows"), [("inner", 996), ("left", 1461), ("right", 997), ("full", 1462), ("semi", 996), ("anti", 465)]
)
def test_join_keeps_the_rows_that_it_says(tabular: RunMethod, how: str, rows: int) -> None:
    """259 rainy, 714 sunny and 23 snowy days have a kind; drizzle and fog have none; hail has no day."""
    made = tabular("join", left="weather", right="kinds", on={"weather": "kind"}, how=how).result
    assert made["rows"] == rows
    names = [column["name"] for column in made["columns"]]
    assert names[:6] == ["date", "precipitation", "temp_max", "temp_min", "wind", "weather"]
    assert names[6:] == ([] if how in ("semi", "anti") else ["wet", "date_right"])


def test_pivot_makes_columns_of_values(tabular: RunMethod) -> None:
    """Counts agree with those of the file; a mean needs a column, and a value may have any text."""
    made = tabular("pivot", file="weather", rows=["weather"], columns="weather", into="counts.csv", show=9).result
    assert [column["name"] for column in made["columns"]] == ["weather", "drizzle", "fog", "rain", "snow", "sun"]
    assert [max(row[1:]) for row in made["sample"]] == [54, 411, 259, 23, 714]
    (tabular.session / "odd.csv").write_text('k,v,n\na,it\'s; "x",1\na,,2\nb,k,4\n')
    odd = tabular("pivot", file="odd", rows=["k"], columns="v", values="n", aggregate="sum").result
    assert [column["name"] for column in odd["columns"]] == ["k", 'it\'s; "x"', "k_", "null"]
    assert odd["sample"] == [["a", 1, None, 2], ["b", None, 4, None]]
    with pytest.raises(RunFailed, match="to take the mean, say of which column"):
        tabular("pivot", file="weather", rows=["date"], columns="weather", aggregate="mean")


def test_samples_are_drawn_again_by_their_seed(tabular: RunMethod) -> None:
    """The same seed gives the same rows in the file's order, another one others; `by` gives each value its part."""
    first = tabular("sample", file="weather", rows=50, seed=7, show=50).result
    assert first["rows"] == 50
    assert tabular("sample", file="weather", rows=50, seed=7, show=50).result["sample"] == first["sample"]
    assert tabular("sample", file="weather", rows=50, seed=8, show=50).result["sample"] != first["sample"]
    dates = [row[0] for row in first["sample"]]
    assert dates == sorted(dates)
    apart = tabular("sample", file="weather", rows=50, by="weather", show=50).result["sample"]
    kinds = [row[5] for row in apart]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(("drizzle", "fog", "rain", "snow", "sun"), 10)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "json", "ndjson", "xlsx", "arrow", "feather"])
def test_every_format_there_and_back(tabular: RunMethod, suffix: str) -> None:
    """Weather in a format and back from it is the same table, types and all."""
    tabular("load", file="weather.csv", into="typed.parquet")
    there = tabular("convert", file="typed.parquet", into=f"there.{suffix}").result
    assert there["rows"] == 1461
    assert there["size"] == (tabular.session / f"there.{suffix}").stat().st_size
    tabular("convert", file=f"there.{suffix}", into="back.parquet")
    before, after = (pa.parquet.read_table(tabular.session / f"{name}.parquet") for name in ("typed", "back"))
    assert after.to_pylist() == before.to_pylist()


def test_excel_files_are_what_others_expect(tabular: RunMethod) -> None:
    """Dates are dates, a text that looks like a formula is none, and sheets are chosen by name."""
    (tabular.session / "t.csv").write_text("d,t\n2026-01-31,=1+1\n")
    tabular("convert", file="t.csv", into="t.xlsx")
    sheet = openpyxl.load_workbook(tabular.session / "t.xlsx").active
    assert sheet is not None
    cell: Any = sheet["B2"]
    assert (sheet["A2"].value, cell.value, cell.data_type) == (datetime.datetime(2026, 1, 31), "=1+1", "s")
    book = openpyxl.Workbook()
    book.create_sheet("second").append(["a", None, "a"])
    book["second"].append([1, "x", 2.5])
    book["second"].append(["y", None, None])
    book.save(tabular.session / "given.xlsx")
    tabular("convert", file="given.xlsx", sheet="second", into="given.json")
    assert (tabular.session / "given.json").read_text().count("column2") == 2
    with pytest.raises(RunFailed, match="there is no sheet 'third'; there is: Sheet, second"):
        tabular("convert", file="given.xlsx", sheet="third", into="x.csv")


def test_new_tables_can_be_arrow_or_excel_too(tabular: RunMethod) -> None:
    """`into` takes every format that is written; a failed one leaves nothing."""
    made = tabular("join", left="weather", right="kinds", on={"weather": "kind"}, into="j.arrow", show=1)
    assert pyarrow.feather.read_table(made.files["j.arrow"]).num_rows == made.result["rows"]
    with pytest.raises(RunFailed, match="must end in one of"):
        tabular("convert", file="weather", into="w.pickle")
    with pytest.raises(RunFailed, match="there is no column 'kid' in kinds; there is: kind, wet, date"):
        tabular("join", left="weather", right="kinds", on={"weather": "kid"}, into="k.csv")
    assert not [path for path in tabular.session.iterdir() if path.name.endswith(".part")]
