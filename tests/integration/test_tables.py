"""Kept tables against plain Python, on rows of every kind."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataproc.tables import Builder, Condition, NotATableError, Order, Shelf, Table, rows_of
from dataproc.tables.patterns import matching

TEXTS = st.text(alphabet='ab*"\\\né\u20ac', max_size=4)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    TEXTS, st.lists(st.integers(0, 2), max_size=2),
)  # fmt: skip
ROWS = st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES), max_size=30)
SLOW_DISK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def a_table(folder: Path, rows: list[dict[str, Any]], name: str = "t") -> tuple[Shelf, Table]:
    builder, shelf = Builder(), Shelf(folder / "views")
    builder.add(rows)
    return shelf, shelf.keep(name, lambda part: builder.write(part, {}))


def shown(table: Table, chosen: Any, begin: int, end: int) -> list[Any]:
    found = json.loads(b"[" + b"".join(table.page(chosen, begin, end)) + b"]")
    assert isinstance(found, list)
    return found


def rank(value: Any) -> tuple[int, Any]:
    if value is None:
        return (9, 0)
    if isinstance(value, bool):
        return (0, value)
    if isinstance(value, int | float):
        return (1, value)
    return (2, value) if isinstance(value, str) else (3, json.dumps(value))


@SLOW_DISK
@given(ROWS, st.integers(0, 30), st.integers(0, 30))
def test_a_page_is_the_rows_as_they_came(tmp_path: Path, rows: list[dict[str, Any]], begin: int, count: int) -> None:
    """Every value as it was; a member that a row lacks is null."""
    _, table = a_table(tmp_path, rows)
    names = [column.name for column in table.columns]
    begin = min(begin, len(rows))
    end = min(begin + count, len(rows))
    assert shown(table, None, begin, end) == [{name: row.get(name) for name in names} for row in rows[begin:end]]


@SLOW_DISK
@given(ROWS, st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=4))
def test_sorting_is_pythons(tmp_path: Path, rows: list[dict[str, Any]], by: list[tuple[int, bool]]) -> None:
    """Stable, each column its own way."""
    shelf, table = a_table(tmp_path, rows)
    names = [column.name for column in table.columns]
    orders = tuple(Order(place % len(names), down) for place, down in by) if names else ()
    expected = list(range(len(rows)))
    for order in reversed(orders):
        expected.sort(key=lambda row: rank(rows[row].get(names[order.column])), reverse=order.descending)
        if order.descending:  # equal rows stay as they came
            groups: dict[Any, list[int]] = {}
            for row in expected:
                groups.setdefault(rank(rows[row].get(names[order.column])), []).append(row)
            expected = [row for group in groups.values() for row in group]
    for _ in range(2):  # found, then kept
        chosen = shelf.selection("t", table, (), orders)
        assert (list(range(len(rows))) if chosen is None else list(chosen)) == expected


def plain(text: str, parts: list[str]) -> bool:
    """Whether text is made of these parts with anything between them; by trying all."""
    if len(parts) == 1:
        return text == parts[0]
    if not text.startswith(parts[0]):
        return False
    rest = text[len(parts[0]) :]
    return any(plain(rest[at:], parts[1:]) for at in range(len(rest) + 1))


@SLOW_DISK
@given(st.lists(st.one_of(st.none(), TEXTS)), TEXTS)
def test_patterns_on_text(tmp_path: Path, values: list[str | None], pattern: str) -> None:
    """Whatever stands in text or pattern: escapes, quotes, new lines; only `*` is special."""
    _, table = a_table(tmp_path, [{"a": value} for value in values])
    if not values:
        return
    column = table.columns[0]
    found = matching(column, pattern)[column.codes].tolist()
    expected = [
        pattern in ("", "*") if value is None else plain(value, pattern.split("*")) for value in values
    ]  # null is matched by nothing and by anything
    assert found == expected


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [("1", [1, 1.0]), ("1.0", [1, 1.0]), ("1*", [1, 1.0, 12]), ("*2*", [12, -2.5]), ("-2.5", [-2.5]), ("true", [True]),
     ("TRUE", [True]), ("t*", [True]), ("one", ["one"]), ("[1]", [[1]]), ("[*", [[1]]), ("", [None]),
     ("1e0", [1, 1.0]), ("nan", []), ("1\n12", []), ("1_2", []), ("*\n*", []), ("9" * 5000, [])],
)  # fmt: skip
def test_patterns_on_other_values(tmp_path: Path, pattern: str, matched: list[Any]) -> None:
    """Numbers by value, or with a wildcard by their digits; true and false by name; null by nothing."""
    values = [1, 1.0, 12, -2.5, True, False, "one", [1], None]
    _, table = a_table(tmp_path, [{"a": value} for value in values])
    column = table.columns[0]
    hits = matching(column, pattern)[column.codes]
    assert [repr(value) for value, hit in zip(values, hits, strict=True) if hit] == [repr(value) for value in matched]


def test_many_words_of_sort_keys(tmp_path: Path) -> None:
    """Columns whose codes do not fit one word together are sorted all the same."""
    rows: list[dict[str, Any]] = [{"a": n * 7919 % 5000, "b": n % 3, "c": -n, "d": str(n)} for n in range(5000)]
    shelf, table = a_table(tmp_path, rows)
    orders = (Order(1, True), Order(0), Order(2), Order(3))
    chosen = shelf.selection("t", table, (Condition(1, "*"),), orders)
    assert chosen is not None
    expected = sorted(range(5000), key=lambda n: (-rows[n]["b"], rows[n]["a"], rows[n]["c"], rows[n]["d"]))
    assert chosen.tolist() == expected


def test_a_new_table_forgets_the_orders_of_the_old_one(tmp_path: Path) -> None:
    """The same order of new rows is found anew, and the old table stays readable for who has it open."""
    shelf, old = a_table(tmp_path, [{"a": 1}, {"a": 2}])
    assert shelf.selection("t", old, (), (Order(0, True),)) is not None
    _, new = a_table(tmp_path, [{"a": 5}, {"a": 6}, {"a": 7}])
    chosen = shelf.selection("t", new, (), (Order(0, True),))
    assert chosen is not None
    assert chosen.tolist() == [2, 1, 0]
    assert shown(old, None, 0, 2) == [{"a": 1}, {"a": 2}]
    assert len(list((tmp_path / "views").glob("*.rows"))) == 1


def test_tables_and_orders_are_bounded(tmp_path: Path) -> None:
    """A session keeps some tables and some orders of each, and no part of what was being written."""
    for number in range(20):
        shelf, table = a_table(tmp_path, [{"a": number}], f"t{number}")
    for number in range(40):
        shelf.selection("t19", table, (Condition(0, str(number)),), ())
    left = list((tmp_path / "views").iterdir())
    assert len([path for path in left if path.suffix == ".table"]) == 16
    assert len([path for path in left if path.suffix == ".rows"]) == 32
    assert len(left) == 48
    assert shelf.open("t0") is None


def test_tables_make_room_for_each_other(tmp_path: Path) -> None:
    """Beyond the bytes that a session may take, those that were used longest ago go; the newest stays."""
    shelf = Shelf(tmp_path / "views", most_bytes=20_000)
    for number in range(6):
        builder = Builder()
        builder.add({"a": f"{number} {row}"} for row in range(500))
        shelf.keep(f"t{number}", lambda part, builder=builder: builder.write(part, {}))  # type: ignore[misc]
    left = sorted(path.stem for path in (tmp_path / "views").glob("*.table"))
    assert left == ["t4", "t5"]


@pytest.mark.parametrize(
    "text",
    ["", "[", "{}", "1", "[1]", "[[]]", '["a"]', '[{"a":1}', '[{"a":NaN}]', '[{"a":1e999}]', '[{"a":Infinity}]', "[{]",
     '[{"a":' + "[" * 100_000 + "]" * 100_000 + "}]", '[{"a":' + "9" * 5000 + "}]", '[{"a":1} {"a":2}]', '[{"a":1},]'],
)  # fmt: skip
def test_what_is_no_table(tmp_path: Path, text: str) -> None:
    """A result file is written by a module, and may hold anything."""
    builder = Builder()
    with pytest.raises(NotATableError):  # noqa: PT012 - either step may tell
        builder.add(rows_of(io.BytesIO(text.encode())))
        builder.write(tmp_path / "t", {})


def test_too_many_columns() -> None:
    """A row with a name of its own for each value is refused before it takes the memory."""
    with pytest.raises(NotATableError, match="columns"):
        Builder().add({f"c{n}": 1} for n in range(2000))


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_rows_come_whole_however_they_are_cut(size: int) -> None:
    """Text that comes in pieces, also in the middle of a character or a number."""

    class Pieces(io.BytesIO):
        def read(self, _: int | None = -1, /) -> bytes:
            return super().read(size)

    rows = [{"number": -12.5e3, "text": 'é"\\€', "n": [1, {"a": None}]}, {}, {"x": 123456789}]
    assert list(rows_of(Pieces(json.dumps(rows, ensure_ascii=False, indent=1).encode()))) == rows
    assert list(rows_of(Pieces(b" [ ] "))) == []


def test_kinds_of_columns(tmp_path: Path) -> None:
    """What all values of a column are."""
    # fmt: off
    rows = [{"i": 1, "f": 1, "s": "x", "d": "2012-01-01", "m": "2012-01-01T10:00:00Z", "b": True, "o": [1], "x": 1},
            {"i": 2, "f": 1.5, "s": "2012-01-01", "d": None, "m": "2012-01-02", "b": None, "o": {}, "x": "a"}]
    # fmt: on
    _, table = a_table(tmp_path, rows)
    kinds = {column.name: column.kind for column in table.columns}
    assert kinds == {
        "i": "integer", "f": "number", "s": "string", "d": "date", "m": "date-time", "b": "boolean", "o": "object",
        "x": "string",
    }  # fmt: skip
