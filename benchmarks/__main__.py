"""`python -m benchmarks [--quick] [--json FILE] [SCENARIO…]`: measures, and prints each figure against its target."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bench import Bench
from benchmarks.harness import Finding, Measured, Options
from benchmarks.load import have_wrk
from benchmarks.scenarios import ALL


def main() -> None:
    """Run the scenarios that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"some of {', '.join(ALL)}; default all")
    parser.add_argument("--quick", action="store_true", help="show that all of it runs; the figures mean nothing")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds, each with its ratio; default 7")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there too")
    asked = parser.parse_args()
    if unknown := set(asked.scenarios) - set(ALL):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    options = Options.quick() if asked.quick else Options()
    if asked.rounds:
        options = replace(options, rounds=asked.rounds)
    found = measure(asked.scenarios or list(ALL), options)
    show(found, options, quick=asked.quick)
    if asked.json:
        asked.json.write_text(json.dumps(report(found, options), indent=2) + "\n")


def measure(names: list[str], options: Options) -> Measured:
    """What the named scenarios find."""
    found: Measured = []
    console = Console(stderr=True)
    with Bench(options) as bench:
        for name in names:
            console.print(f"measuring {name} …", style="dim")
            found += ALL[name](bench)
    return found


def show(found: Measured, options: Options, *, quick: bool) -> None:
    """The table."""
    title = (
        "quick: the figures mean nothing"
        if quick
        else f"median of {options.rounds} rounds, {os.cpu_count()} cores, {'wrk' if have_wrk() else 'no wrk'}"
    )
    table = Table("what", "found", "lowest to highest", "target", "", "medians", title=title)
    for row in found:
        if isinstance(row, Finding):
            spread = f"{row.spread[0]:.2f} to {row.spread[1]:.2f}" if row.spread else ""
            target = f"{row.sense} {row.target:g} {row.unit}"
            verdict = "" if quick else "[green]pass" if row.passed else "[red]MISS"
            medians = ", ".join(f"{name} {value}" for name, value in row.seen.items())
            table.add_row(row.what, f"{row.value:.2f} {row.unit}", spread, target, verdict, medians)
        else:
            table.add_row(f"{row.scenario}: {row.why}", "", "", "", "[yellow]SKIPPED", "")
    Console(width=None if Console().is_terminal else 160).print(table)


def report(found: Measured, options: Options) -> dict[str, Any]:
    """The findings and what they were found on, for programs."""
    machine = {"python": platform.python_version(), "kernel": platform.release(), "cores": os.cpu_count()}
    told = {"at": datetime.now(UTC).isoformat(), "dataproc": version("dataproc"), "wrk": have_wrk(), **machine}
    rows = [{**asdict(row), **({"passed": row.passed} if isinstance(row, Finding) else {})} for row in found]
    return {**told, "options": asdict(options), "findings": rows}


if __name__ == "__main__":
    main()
