from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_quick_run_has_every_row(tmp_path: Path) -> None:
    """A quick run of all scenarios ends well and finds each row of the targets; its figures are nobody's business."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(report)]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = json.loads(report.read_text())["findings"]
    found = [row["scenario"] for row in rows if "what" in row]
    skipped = {row["scenario"] for row in rows if "why" in row}
    assert set(found) | skipped == {
        "warm",
        "throughput",
        "first-call",
        "worker-memory",
        "many-files",
        "many-sessions",
    }
    assert found.count("throughput") == 4
    assert all(row["value"] > 0 for row in rows if row.get("unit") == "×")
    assert "left behind" not in ran.stdout
