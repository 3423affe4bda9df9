"""Sessions on S3: what an unchanged run costs more than on a disk, and how fast a tree travels beside `aws s3 sync`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.callers import Caller, Target
from benchmarks.harness import Finding, Measured, Options, Skipped, by_turns, compared, p50_by_turns
from benchmarks.ours import Ours, exec_target
from benchmarks.processes import serving
from benchmarks.scenarios.warm import WARM_UP
from dataproc.clock import SystemClock
from dataproc.settings import Settings
from dataproc.storage import Workspaces, open_workspaces
from dataproc.storage.object_store.leases import Ledger, MemoryLeases

NAME = "object-storage"
EXTRA, SYNC = 2.0, 1.2
SMALL, LARGE = 10_000, 256 * 2**20
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def run(bench: Bench) -> Measured:
    """Two servers, one of them on a bucket; then one tree, stored and fetched by both programs."""
    if find_spec("moto") is None or find_spec("s3fs") is None:
        return [Skipped(NAME, "packages moto and s3fs are not installed; make install")]
    with tempfile.TemporaryDirectory() as folder, _bucket(Path(folder)) as (endpoint, bucket):
        found: Measured = [_unchanged(bench, endpoint, bucket)]
        if shutil.which("aws") is None:
            return [*found, Skipped(NAME, "the command `aws` is not installed; pip install awscli")]
        return found + _synced(bench.options, Path(folder), endpoint, bucket)


def _unchanged(bench: Bench, endpoint: str, bucket: str) -> Finding:
    far = bench.another(
        "on-s3",
        STORAGE_URL=f"s3://{bucket}/sessions",
        DATABASE_URL="sqlite:///storage/dataproc.db",
        S3_ENDPOINT=endpoint,
        S3_REGION="us-east-1",
        S3_ACCESS_KEY_ID="id",
        S3_SECRET_ACCESS_KEY="secret",  # noqa: S106
    )
    callers = {name: Caller(_look(server)) for name, server in (("local", bench.ours), ("s3", far))}
    for caller in callers.values():
        caller.times(WARM_UP)
    rounds = p50_by_turns({name: caller.times for name, caller in callers.items()}, bench.options)
    extra = [1e3 * (far - near) for far, near in zip(rounds["s3"], rounds["local"], strict=True)]
    what = "warm call that changes no file, on S3, p50, more than on local storage"
    seen = {name: f"{1e3 * median(times):.3g} ms" for name, times in rounds.items()}
    return Finding(NAME, what, median(extra), "at most", EXTRA, "ms", (min(extra), max(extra)), seen)


def _look(server: Ours) -> Target:
    target = server.open()
    return exec_target(server.port, target.headers["Xdata-Session-Token"], "bench-files", "look", {})


def _synced(options: Options, folder: Path, endpoint: str, bucket: str) -> Measured:
    tree = folder / "tree"
    files, large = (1000, LARGE) if options.files > 1000 else (options.files, 2**20)
    _fill(tree, files, large)
    env = {**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}
    rounds = max(1, options.rounds // 3)
    peer = _Aws(tree, folder / "fetched", bucket, env)
    mine = _Mine(tree, folder / "node", endpoint, bucket)
    stored = by_turns({"aws": peer.store, "ours": mine.store}, rounds)
    fetched = by_turns({"aws": peer.fetch, "ours": mine.fetch}, rounds)
    tell = f"{files:,} files of 10 KB and one of {large // 2**20} MiB, over `aws s3 sync`"
    pair = ("ours", "aws")
    return [
        compared(NAME, f"storing {tell}", stored, pair, "at most", SYNC, _seconds),
        compared(NAME, f"fetching {tell}", fetched, pair, "at most", SYNC, _seconds),
    ]


class _Aws:
    """The command, each time with a new place."""

    def __init__(self, tree: Path, fetched: Path, bucket: str, env: Mapping[str, str]) -> None:
        self._tree, self._fetched, self._bucket, self._env = tree, fetched, bucket, env
        self._last = ""

    def store(self) -> float:
        self._last = f"s3://{self._bucket}/aws/{uuid.uuid4().hex}"
        return self._sync(str(self._tree), self._last)

    def fetch(self) -> float:
        shutil.rmtree(self._fetched, ignore_errors=True)
        return self._sync(self._last, str(self._fetched))

    def _sync(self, source: str, target: str) -> float:
        command = ["aws", "s3", "sync", "--quiet", source, target]
        begun = time.perf_counter()
        subprocess.run(command, env=dict(self._env), check=True)  # noqa: S603
        return time.perf_counter() - begun


class _Mine:
    """A node, each time with a new session; the copy to plain names is waited for, but not measured."""

    def __init__(self, tree: Path, folder: Path, endpoint: str, bucket: str) -> None:
        self._tree, self._folder, self._ledger = tree, folder, Ledger()
        self._settings = {
            "storage_url": f"s3://{bucket}/ours",
            "database_url": "sqlite://",
            "s3_endpoint": endpoint,
            "s3_region": "us-east-1",
            "s3_access_key_id": "id",
            "s3_secret_access_key": "secret",
        }
        self._last = ""

    def store(self) -> float:
        self._last = f"session-{uuid.uuid4().hex}"
        return asyncio.run(self._store())

    def fetch(self) -> float:
        return asyncio.run(self._fetch())

    async def _store(self) -> float:
        node = self._node()
        async with node.of(self._last).checkout() as tree:
            shutil.copytree(self._tree, tree.files, dirs_exist_ok=True)
            begun = time.perf_counter()
        took = time.perf_counter() - begun
        await node.settle()
        await node.close()
        return took

    async def _fetch(self) -> float:
        node = self._node()
        begun = time.perf_counter()
        await node.bring(self._last)
        took = time.perf_counter() - begun
        await node.close()
        return took

    def _node(self) -> Workspaces:
        settings = Settings(cache_dir=self._folder / uuid.uuid4().hex, **self._settings)  # type: ignore[arg-type]
        return open_workspaces(settings, leases=MemoryLeases(self._ledger, SystemClock(), 15))


@contextmanager
def _bucket(folder: Path) -> Iterator[tuple[str, str]]:
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with serving(command, env, folder / "moto.log", folder) as served:
        endpoint, bucket = f"http://127.0.0.1:{served.port}", f"bench-{uuid.uuid4().hex[:8]}"
        asked = urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")  # noqa: S310
        urllib.request.urlopen(asked, timeout=30).close()  # noqa: S310
        yield endpoint, bucket


def _fill(tree: Path, files: int, large: int) -> None:
    tree.mkdir()
    for number in range(files):
        (tree / f"file-{number:04}").write_bytes(os.urandom(SMALL))
    (tree / "large").write_bytes(os.urandom(large))


def _seconds(value: float) -> str:
    return f"{value:.3g} s"
