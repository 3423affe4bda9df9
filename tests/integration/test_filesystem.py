"""`xdata://`, and the client's files, against the real server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import duckdb
import fsspec
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from xdata_dataproc import Client, Session

from tests.integration.test_clients import serving


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with serving(tmp_path_factory.mktemp("server")) as variables:
        yield variables


@pytest.fixture
def session(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with Client() as client, client.open_session() as opened:
        yield opened


@pytest.fixture
def options(session: Session, environment: dict[str, str]) -> dict[str, str]:
    """What `storage_options` has to say."""
    return {"endpoint": environment["DATAPROC_URL"], "session_token": session.token}


def a_table(rows: int = 20_000) -> pd.DataFrame:
    return pd.DataFrame({"n": range(rows), "text": [f"row {n}" for n in range(rows)]})


def test_pandas(options: dict[str, str]) -> None:
    """Tables are written to and read from addresses of the session, parquet and text."""
    a_table().to_parquet("xdata://a/result.parquet", storage_options=options)
    back = pd.read_parquet("xdata://a/result.parquet", storage_options=options, columns=["n"])
    assert back["n"].sum() == sum(range(20_000))
    a_table(10).to_csv("xdata://t.csv", index=False, storage_options=options)
    assert len(pd.read_csv("xdata://t.csv", storage_options=options)) == 10


def test_pandas_by_the_environment(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options, the environment says which session is meant."""
    monkeypatch.setenv("DATAPROC_SESSION_TOKEN", session.token)
    fsspec.get_filesystem_class("xdata").clear_instance_cache()
    a_table(5).to_csv("xdata://t.csv", index=False)
    assert session.files.read("t.csv").startswith(b"n,text\n0,row 0\n")


def test_pyarrow(options: dict[str, str]) -> None:
    """A directory of parquet files is one data set."""
    fs = fsspec.filesystem("xdata", **options)
    for part in range(3):
        pq.write_table(pq.read_table(_parquet(part)), f"parts/{part}.parquet", filesystem=fs)
    assert ds.dataset("parts", filesystem=fs).count_rows() == 300


def _parquet(part: int) -> io.BytesIO:
    buffer = io.BytesIO()
    a_table(100).assign(part=part).to_parquet(buffer)
    buffer.seek(0)
    return buffer


def test_duckdb(options: dict[str, str]) -> None:
    """DuckDB reads and writes the session's files, by patterns too."""
    with duckdb.connect() as connection:
        connection.register_filesystem(fsspec.filesystem("xdata", **options))
        connection.sql("COPY (SELECT range AS n FROM range(1000)) TO 'xdata://out/a.parquet'")
        connection.sql("COPY (SELECT range AS n FROM range(10)) TO 'xdata://out/b.parquet'")
        assert connection.sql("SELECT sum(n) FROM 'xdata://out/a.parquet'").fetchall() == [(499_500,)]
        assert connection.sql("SELECT count(*) FROM 'xdata://out/*.parquet'").fetchall() == [(1010,)]


def test_what_a_filesystem_can_do(options: dict[str, str], tmp_path: Path) -> None:
    """Listing, looking, copying, moving and deleting, as of any other filesystem."""
    fs = fsspec.filesystem("xdata", **options)
    assert fs.ls("") == []
    fs.pipe({"d/a": b"0123456789", "d/e/b": b"b"})
    assert fs.ls("xdata://d", detail=False) == ["d/a", "d/e"]
    assert fs.find("") == ["d/a", "d/e/b"]
    assert (fs.isdir("d"), fs.isfile("d/a"), fs.exists("d/x"), fs.size("d/a")) == (True, True, False, 10)
    assert (fs.cat_file("d/a", 2, 4), fs.cat_file("d/a", -3), fs.tail("d/a", 2)) == (b"23", b"789", b"89")
    fs.mv("d/a", "moved")
    assert (fs.cat("moved"), fs.exists("d/a")) == (b"0123456789", False)
    fs.get("d", str(tmp_path / "d"), recursive=True)
    assert (tmp_path / "d" / "e" / "b").read_bytes() == b"b"
    fs.put(str(tmp_path / "d"), "again", recursive=True)
    assert fs.cat("again/e/b") == b"b"
    fs.rm("again", recursive=True)
    assert not fs.exists("again")
    for missing in ("nothing", "no/thing"):
        with pytest.raises(FileNotFoundError):
            fs.cat(missing)
        with pytest.raises(FileNotFoundError):
            fs.info(missing)
    with fs.open("moved", "ab") as file:
        file.write(b"!")
    with fs.open("moved") as file:
        file.seek(-2, 2)
        assert file.read() == b"9!"


def test_directories_are_no_files(options: dict[str, str]) -> None:
    """They are copied with what is in them, and cannot be opened."""
    fs = fsspec.filesystem("xdata", **options)
    fs.pipe({"from/a": b"1", "from/b/c": b"2"})
    fs.cp("from", "to", recursive=True)
    assert fs.cat(fs.find("to")) == {"to/a": b"1", "to/b/c": b"2"}
    with pytest.raises(IsADirectoryError):
        fs.open("from")


def test_files_are_opened_for_writing(session: Session) -> None:
    """What is written is there when the file is closed; where the block fails, it never is; `x` does not replace."""
    with session.files.open("t.txt", "w") as text:
        text.write("grüße\n")
    with session.files.open("t.txt", "r") as text:
        assert text.read() == "grüße\n"

    def fails() -> None:
        with session.files.open("t.txt", "wb") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert session.files.read("t.txt") == "grüße\n".encode()
    with pytest.raises(FileExistsError), session.files.open("t.txt", "xb") as file:
        file.write(b"other")


def test_transfers_tell_their_progress(session: Session, tmp_path: Path) -> None:
    """Both ways the bytes done are told, to the last one, and a bar can be shown."""
    (tmp_path / "big").write_bytes(bytes(3_000_000))
    seen: list[tuple[int, int | None]] = []
    session.files.upload(tmp_path / "big", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3_000_000, 3_000_000)
    seen.clear()
    session.files.download("big", tmp_path / "back", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3_000_000, 3_000_000)
    assert session.files.download("big", tmp_path / "back", progress=True).stat().st_size == 3_000_000
