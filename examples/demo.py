"""The main job on real data, start to end: `make demo`.

Starts a server of its own on a free loopback port with a fresh storage folder, makes a key, and calls it with the
xData clients. Leaves nothing running, and nothing behind but the plot: in demo-output/, or in the folder that is
given as an argument.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.tree import Tree
from xdata_dataproc import Client, Files
from xdata_dataproc.client import ApiV2 as DataprocApi
from xdata_session.client import ApiV2 as SessionApi

T = TypeVar("T")
HERE = Path(__file__).resolve().parent
WEATHER = HERE / "data" / "seattle-weather.csv"
OUTPUT = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "demo-output"
DATAPROC = str(Path(sys.executable).with_name("dataproc"))
START_LIMIT, STOP_LIMIT = 60.0, 30.0
YEARS = """
    SELECT year(date) AS year, sum(precipitation) AS rain_mm, avg(temp_max) AS mean_high, max(temp_max) AS highest,
        count(*) FILTER (weather = 'sun') AS sunny_days, count(*) FILTER (weather = 'snow') AS snow_days
    FROM "seattle-weather" GROUP BY ALL ORDER BY year
"""

console = Console(highlight=False)


def main() -> int:
    """The demo and its clean-up; the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="dataproc-demo-", ignore_cleanup_errors=True) as folder:
        storage, log = Path(folder) / "storage", Path(folder) / "server.log"
        try:
            env = environment(storage)
            key = make_key(env)
            with serving(env, log) as url:
                show(url, key["apikey"], key["secret"], storage)
        except KeyboardInterrupt:
            console.print("\nStopped by you; the server is down.")
            return 130
        except Exception:
            console.print_exception()
            if log.exists():
                console.rule("the end of the server's log", style="red")
                console.print(log.read_text(errors="replace")[-5000:], markup=False)
            return 1
    console.print(f"Nothing is left running. {time.perf_counter() - begun:.1f} s in all.")
    return 0


def show(url: str, apikey: str, secret: str, storage: Path) -> None:
    """What the demo is for."""
    sessions = SessionApi(f"{url}/api/v1/session/jsonrpc", apikey, secret)
    opened = timed("open a session", lambda: sessions.open_session(expires_in=600))
    token = opened["access_token"]
    dataproc = DataprocApi(f"{url}/api/v1/dataproc/jsonrpc", session_token=token)
    files = Client(url).session(token).files

    console.rule("A method leaves an artifact, the second call finds it")
    for which in ("first", "second"):
        answer = timed(f"test-module session-test, {which}", lambda: dataproc.exec("test-module", "session-test"))
        console.print_json(json.dumps(answer))

    console.rule("Four years of weather in Seattle, by the tabular module")
    timed("upload seattle-weather.csv", lambda: files.upload(WEATHER))
    look_at_weather(dataproc, files)

    console.rule("The session directory")
    console.print(tree(files, f"session {opened['session_id']}"))

    console.rule("Closed, and gone")
    directory = next(storage.glob(f"sessions/*/{opened['session_id']}"))
    timed("close the session", lambda: sessions.close_session(token))
    if directory.exists() or sessions.verify_session_token(token)["active"]:
        raise RuntimeError(f"the session is closed, but not gone: {directory}")
    console.print("Its token is not active, and its directory is not on the server's disk any more.")


def look_at_weather(dataproc: DataprocApi, files: Files) -> None:
    """Profile, SQL and plot, with small tables of the answers and the plot as a local file."""
    file = {"file": WEATHER.name}
    profile = timed("tabular profile", lambda: dataproc.exec("tabular", "profile", params=file))
    told = ("name", "type", "nulls", "distinct", "min", "mean", "max")
    console.print(f"{profile['rows']:,} days")
    console.print(grid(told, [[column.get(name, "") for name in told] for column in profile["columns"]]))

    asked = {"query": YEARS, "into": "years.parquet"}
    years = timed("tabular sql", lambda: dataproc.exec("tabular", "sql", params=asked))
    console.print(grid([column["name"] for column in years["columns"]], years["rows"]))

    drawn = {**file, "x": "date", "y": ["temp_max", "temp_min"], "into": "temperature.png"}
    titled = {**drawn, "title": "Seattle, warmest and coldest of each day (°C)"}
    plot = timed("tabular plot", lambda: dataproc.exec("tabular", "plot", params=titled))
    if not OUTPUT.exists():
        OUTPUT.mkdir()
        (OUTPUT / ".gitignore").write_text("*\n")
    saved = timed("download the plot", lambda: files.download(plot["into"], OUTPUT))
    console.print(f"The plot is {saved}", soft_wrap=True)


def timed(what: str, call: Callable[[], T]) -> T:
    """The call's result; prints what it was and how long it took."""
    begun = time.perf_counter()
    result = call()
    console.print(f"[bold]{what}[/] [dim]{1e3 * (time.perf_counter() - begun):.1f} ms[/]")
    return result


def grid(columns: Sequence[str], rows: list[list[Any]]) -> Table:
    """A small table."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*(f"{cell:.5g}" if isinstance(cell, float) else str(cell) for cell in row))
    return table


def tree(files: Files, label: str, path: str = "") -> Tree:
    """The directory at `path` and all below it, as the server lists it."""
    branch = Tree(label)
    for entry in sorted(files.list(path), key=lambda entry: entry.name):
        if entry.type == "directory":
            branch.add(tree(files, f"{entry.name}/", entry.path))
        else:
            branch.add(f"{entry.name} [dim]{entry.size:,} bytes[/]")
    return branch


def environment(storage: Path) -> dict[str, str]:
    """The caller's environment, without its settings for another server, for a server of the demo's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DATAPROC_")}
    ours = {"DATAPROC_HOST": "127.0.0.1", "DATAPROC_PORT": "0", "DATAPROC_STORAGE_URL": str(storage)}
    return {**kept, **ours, "DATAPROC_MODULES_DIR": str(HERE.parent / "modules")}


def make_key(env: dict[str, str]) -> dict[str, str]:
    """A key with its secret, made as an administrator makes it."""
    command = [DATAPROC, "key", "create", "--name", "demo", "-o", "json"]
    made = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)  # noqa: S603
    key: dict[str, str] = json.loads(made.stdout)
    return key


@contextmanager
def serving(env: dict[str, str], log: Path) -> Iterator[str]:
    """The address of a running server, which is down on leaving, with every process that it had started."""
    begun = time.perf_counter()
    with log.open("wb") as out:  # in a session of its own, so that Ctrl-C reaches the demo alone
        server = subprocess.Popen(  # noqa: S603
            [DATAPROC, "serve"], env=env, cwd=log.parent, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        url = address(server, log)
        taken = 1e3 * (time.perf_counter() - begun)
        console.print(f"[bold]start the server[/] [dim]{taken:.0f} ms[/] {url}")
        yield url
    finally:
        below = descendants(server.pid)
        stop(server)
    if left := [pid for pid, started in below.items() if start_time(pid) == started]:
        raise RuntimeError(f"the server left processes running: {left}")


def address(server: subprocess.Popen[bytes], log: Path) -> str:
    """The address that the server prints when it is ready."""
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended at once, with exit code {server.returncode}")
        if found := re.search(r"listening on (http://\S+)", log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.02)
    raise TimeoutError(f"the server was not ready after {START_LIMIT:.0f} s")


def stop(server: subprocess.Popen[bytes]) -> None:
    """Ask it to end; if it does not, end it."""
    server.terminate()
    try:
        server.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        raise RuntimeError(f"the server had to be killed, {STOP_LIMIT:.0f} s after it was asked to end") from None


def descendants(pid: int) -> dict[int, str]:
    """All processes below one, each with its start time, which tells it from a later one of the same id."""
    found: dict[int, str] = {}
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, listed.read_text().split()):
                if started := start_time(child):
                    found |= {child: started, **descendants(child)}
    return found


def start_time(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None if it is not running."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]


if __name__ == "__main__":
    sys.exit(main())
