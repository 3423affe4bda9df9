"""The first page of a full directory, beside listing its names in this process."""

from __future__ import annotations

import http.client
import json
import os
import time
from dataclasses import replace

from benchmarks.bench import Bench
from benchmarks.callers import Caller
from benchmarks.harness import Measured, Times, compared, milliseconds, p50_by_turns
from benchmarks.ours import exec_target

NAME = "listed-files"
PATH = "/api/v1/dataproc/files/"
WARM_UP = 5


def run(bench: Bench) -> Measured:
    """p50 of the first page, over a bare `sorted(os.listdir())` of the same directory."""
    server, files = bench.another(NAME), bench.options.files
    token = server.open().headers["Xdata-Session-Token"]
    Caller(exec_target(server.port, token, "bench-files", "fill", {"files": files})).call()
    (folder,) = (bench.folder / NAME / "storage" / "sessions").glob("*/*/files")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def page(calls: int) -> Times:
        times = []
        for _ in range(calls):
            begun = time.perf_counter()
            connection.request("GET", PATH, headers={"Xdata-Session-Token": token})
            body = connection.getresponse().read()
            times.append(time.perf_counter() - begun)
            if not json.loads(body)["entries"]:
                raise RuntimeError(f"no page: {body[:200]!r}")
        return times

    def names(calls: int) -> Times:
        times = []
        for _ in range(calls):
            begun = time.perf_counter()
            sorted(os.listdir(folder))
            times.append(time.perf_counter() - begun)
        return times

    page(WARM_UP)
    options = replace(bench.options, blocks=min(bench.options.blocks, 2), calls=5)  # each takes a tenth of a second
    rounds = p50_by_turns({"ours": page, "listdir": names}, options)
    what = f"first page of {files:,} files, p50, over sorted(os.listdir())"
    return [compared(NAME, what, rounds, ("ours", "listdir"), "at most", 1.5, milliseconds)]
