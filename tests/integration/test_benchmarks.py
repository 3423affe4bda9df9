from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

SCENARIOS = ("warm", "throughput", "first-call", "worker-memory")
REPOSITORY = Path(__file__).resolve().parents[2]


def test_quick_run_has_its_rows(tmp_path: Path) -> None:
    """A quick run ends well, finds each row of its scenarios, and leaves no process; its figures mean nothing."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(report), *SCENARIOS]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = json.loads(report.read_text())["findings"]
    found = Counter(row["scenario"] for row in rows if "what" in row)
    skipped = {row["scenario"] for row in rows if "why" in row}
    assert set(found) | skipped == set(SCENARIOS)
    assert found["throughput"] == 4
    assert all(row["value"] > 0 for row in rows if "what" in row)
    assert "left behind" not in ran.stdout
