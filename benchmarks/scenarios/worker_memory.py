"""What an idle warm worker of `test-module` holds for itself."""

from __future__ import annotations

from statistics import median

from benchmarks.bench import Bench
from benchmarks.callers import Caller
from benchmarks.harness import Finding, Measured, Skipped
from benchmarks.processes import children, descendants, private_memory

NAME = "worker-memory"
MIB = 2**20
CALLS = 20


def run(bench: Bench) -> Measured:
    """Private MiB of the workers that appeared under a server of its own, after some calls each."""
    server = bench.another("worker-memory")
    for _ in range(bench.options.workers):
        Caller(server.open()).times(CALLS)
    leaves = [pid for pid in descendants(server.pid) if not children(pid)]
    try:
        held = sorted((private_memory(pid) for pid in leaves), reverse=True)[: bench.options.workers]
    except OSError as error:
        return [Skipped(NAME, f"the kernel does not tell the memory of workers to this user: {error.strerror}")]
    if len(held) < bench.options.workers:
        return [Skipped(NAME, f"{len(held)} workers found for {bench.options.workers} sessions")]
    what = "private memory of an idle warm worker, test-module"
    spread = (min(held) / MIB, max(held) / MIB)
    return [Finding(NAME, what, median(held) / MIB, "at most", 3, "MiB", spread)]
