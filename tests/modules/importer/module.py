"""Uses what people import, each in a method of its own, so that one missing library fails one test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dataproc import Context, Module

module = Module("importer", version="1.0.0", description="Uses libraries.")


def square(number: int) -> int:
    """For pools, which look it up by its name."""
    return number * number


@module.method
def numpy() -> Any:
    """Linear algebra, on as many threads as the library likes."""
    import numpy

    matrix = numpy.arange(250_000, dtype=float).reshape(500, 500) / 250_000
    return round(float(numpy.linalg.norm(matrix @ matrix)), 3)


@module.method
def duckdb(ctx: Context) -> Any:
    """A database in memory, one in a file, CSV and Parquet written and read."""
    import duckdb

    path = str(ctx.session / "numbers.parquet")
    with duckdb.connect(str(ctx.work / "file.db")) as connection:
        connection.sql(f"copy (select range as n from range(100000)) to '{path}'")
        connection.sql("create table t as select * from range(10)")
        return [
            connection.sql(f"select sum(n) from '{path}'").fetchall()[0][0],
            connection.sql("from t").fetchall()[-1][0],
        ]


@module.method
def pandas(ctx: Context) -> Any:
    """A table through CSV, Parquet and back, grouped."""
    import pandas

    frame = pandas.DataFrame({"name": ["a", "b"] * 500, "value": range(1000)})
    frame.to_csv(ctx.session / "table.csv", index=False)
    frame.to_parquet(ctx.session / "table.parquet")
    read = pandas.concat(
        [pandas.read_csv(ctx.session / "table.csv"), pandas.read_parquet(ctx.session / "table.parquet")]
    )
    return {name: int(total) for name, total in read.groupby("name")["value"].sum().items()}


@module.method
def polars(ctx: Context) -> Any:
    """A lazy query on threads of its own."""
    import polars

    polars.DataFrame({"name": ["a", "b"] * 500, "value": range(1000)}).write_parquet(ctx.session / "polars.parquet")
    query = polars.scan_parquet(ctx.session / "polars.parquet").group_by("name").agg(polars.col("value").sum())
    return dict(query.sort("name").collect().iter_rows())


@module.method
def pyarrow(ctx: Context) -> Any:
    """A data set of Parquet files, read on threads; a file mapped into memory."""
    import pyarrow
    import pyarrow.dataset
    import pyarrow.parquet

    table = pyarrow.table({"n": list(range(1000))})
    (ctx.session / "parts").mkdir(exist_ok=True)
    for number in range(4):
        pyarrow.parquet.write_table(table, ctx.session / "parts" / f"{number}.parquet")
    with pyarrow.OSFile(str(ctx.session / "t.arrow"), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write(table)
    with pyarrow.memory_map(str(ctx.session / "t.arrow")) as source:
        mapped = pyarrow.ipc.open_file(source).read_all().num_rows
    return [pyarrow.dataset.dataset(ctx.session / "parts").to_table().num_rows, mapped]


@module.method
def matplotlib(ctx: Context) -> Any:
    """A plot with text, as PNG and as PDF: fonts are found, and the cache has a place."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.plot([1, 2, 3])
    axes.set_title("Ünïcödé and $x^2$")
    figure.savefig(ctx.session / "plot.png")
    figure.savefig(ctx.session / "plot.pdf")
    plt.close(figure)
    return [(ctx.session / "plot.png").read_bytes()[:4].hex(), (ctx.session / "plot.pdf").read_bytes()[:4].decode()]


@module.method
def fonts() -> Any:
    """A font that the library or the system brings, as a file that can be opened."""
    from matplotlib import font_manager

    path = font_manager.findfont(font_manager.FontProperties(family=["sans-serif"]))
    return [os.path.getsize(path) > 0, len(font_manager.fontManager.ttflist) > 0]


@module.method(timeout=110)
def sklearn() -> Any:
    """Trees on two processes' worth of threads, and a search by processes."""
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    data, target = load_iris(return_X_y=True)
    forest = RandomForestClassifier(20, n_jobs=2, random_state=0).fit(data, target)
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 3]}, n_jobs=2, cv=2).fit(
        data, target
    )
    return [forest.score(data, target) > 0.9, search.best_params_["max_depth"]]


@module.method
def scipy() -> Any:
    """A minimum, found."""
    from scipy.optimize import minimize

    return round(float(minimize(lambda x: (x[0] - 3) ** 2, [0.0]).x[0]), 3)


@module.method
def pool(way: str, times: int = 1) -> Any:
    """A pool of processes, started in that way; so often."""
    import multiprocessing

    for _ in range(times):
        with multiprocessing.get_context(way).Pool(2) as workers:
            found = workers.map(square, range(5))
    return found


@module.method
def executor(way: str) -> Any:
    """The same by concurrent.futures, and by threads."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    with (
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(way)) as workers,
        ThreadPoolExecutor(2) as light,
    ):
        return [list(workers.map(square, range(3))), list(light.map(square, range(3)))]


@module.method
def synchronised() -> Any:
    """What processes share: a queue, a lock, a value, a block of memory."""
    import multiprocessing
    from multiprocessing import shared_memory

    context = multiprocessing.get_context("fork")
    queue, lock, value = context.Queue(), context.Lock(), context.Value("i", 1)
    block = shared_memory.SharedMemory(create=True, size=100)

    def work() -> None:
        with lock, value.get_lock():
            value.value += 1
            block.buf[0] = 7
        queue.put("done")

    process = context.Process(target=work)
    process.start()
    told = queue.get(timeout=30)
    process.join()
    result = [told, value.value, block.buf[0]]
    block.close()
    block.unlink()
    return result


@module.method(timeout=110)
def joblib(backend: str) -> Any:
    """A pool of joblib's, with an array that is shared by a memory map."""
    import joblib
    import numpy

    array = numpy.ones(300_000)
    totals = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(numpy.sum)(array) for _ in range(4))
    return [float(total) for total in totals]


@module.method
def subprocesses(ctx: Context) -> Any:
    """A shell with a pipe, an interpreter, a script of the session."""
    import subprocess
    import sys

    script = ctx.session / "script.sh"
    script.write_text('#!/bin/sh\nread line\necho "$line" | tr a-z A-Z\n')
    script.chmod(0o700)
    told = [
        subprocess.run("echo one | cat", shell=True, capture_output=True, text=True, check=True).stdout,
        subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, check=True).stdout,
        subprocess.run([script], input="three\n", capture_output=True, text=True, check=True).stdout,
        subprocess.run(["true"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True).returncode,
    ]
    return [part.strip() if isinstance(part, str) else part for part in told]


@module.method
async def asynchronous() -> Any:
    """An event loop with a child process, a thread and a timer."""
    import asyncio

    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    told, _ = await process.communicate(b"through the loop")
    await asyncio.sleep(0)
    return [told.decode(), await asyncio.to_thread(square, 4)]


@module.method
def psutil() -> Any:
    """This process and the machine."""
    import psutil

    me = psutil.Process()
    return {
        "name": bool(me.name()),
        "memory": me.memory_info().rss > 0,
        "full": me.memory_full_info().uss > 0,
        "threads": me.num_threads() >= 1,
        "files": isinstance(me.open_files(), list),
        "children": me.children(recursive=True),
        "times": me.cpu_times().user >= 0,
        "processors": (psutil.cpu_count() or 0) > 0,
        "physical": psutil.virtual_memory().total > 0,
        "disk": psutil.disk_usage("/session").total > 0,
        "pids": psutil.pids(),
        "iterated": len(list(psutil.process_iter(["name"]))) > 0,
    }


@module.method
def temporary() -> Any:
    """Temporary files and folders of each kind."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as nameless:
        nameless.write(b"x")
        Path(folder, "file").write_text("text")
        with tempfile.NamedTemporaryFile(dir="/tmp") as named, tempfile.SpooledTemporaryFile(1) as spooled:
            spooled.write(b"more than one")
            return [Path(folder, "file").read_text(), os.path.dirname(named.name), tempfile.gettempdir()]


@module.method
def time_zones() -> Any:
    """The zone data base, and the local zone."""
    import time
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo, available_timezones

    there = datetime(2026, 7, 1, 12, tzinfo=UTC).astimezone(ZoneInfo("Europe/Berlin"))
    os.environ["TZ"] = "America/New_York"
    time.tzset()
    here = time.localtime(1_767_225_600).tm_hour
    del os.environ["TZ"]
    time.tzset()
    return [there.isoformat(), here, len(available_timezones()) > 400]


@module.method
def locales() -> Any:
    """UTF-8 by default, and the locales that the system has."""
    import locale
    import sys

    named = locale.setlocale(locale.LC_ALL, "C.UTF-8")
    return [named, sys.getfilesystemencoding(), sys.stdout.encoding.lower(), "ß".upper(), locale.getpreferredencoding()]


@module.method
def processors() -> Any:
    """How many processors each way of asking tells."""
    import multiprocessing

    from joblib import cpu_count

    return [os.cpu_count(), len(os.sched_getaffinity(0)), multiprocessing.cpu_count(), cpu_count()]


@module.method
def user() -> Any:
    """The user has a name and a home that can be written."""
    import getpass
    import pwd

    home = Path.home()
    (home / ".config").mkdir()
    return [getpass.getuser(), pwd.getpwuid(os.getuid()).pw_dir, str(home)]


@module.method
def secrets() -> Any:
    """Random numbers, hashes and TLS contexts (without a connection)."""
    import hashlib
    import secrets
    import ssl
    import uuid

    context = ssl.create_default_context()
    return [
        len(secrets.token_bytes(8)),
        hashlib.sha256(b"").hexdigest()[:8],
        len(str(uuid.uuid4())),
        context.check_hostname,
    ]


@module.method
def sqlite(ctx: Context) -> Any:
    """SQLite in the session directory, in WAL mode, which maps shared memory."""
    import sqlite3

    with sqlite3.connect(ctx.session / "data.sqlite") as connection:
        mode = connection.execute("pragma journal_mode=wal").fetchall()[0][0]
        connection.execute("create table if not exists t (n)")
        connection.execute("insert into t values (1)")
    connection.close()
    return mode


@module.method
def file_systems(ctx: Context) -> Any:
    """The session directory by fsspec, and by locks."""
    ctx.fs.makedirs("sub", exist_ok=True)
    ctx.fs.pipe_file("sub/file.txt", b"text")
    with ctx.lock("name"):
        return [
            ctx.fs.cat_file("sub/file.txt").decode(),
            sorted(os.path.basename(name) for name in ctx.fs.ls("sub", detail=False)),
        ]
