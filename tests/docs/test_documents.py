"""The documents tell what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dataproc.telemetry import Metrics
from tools import docs

ROOT = Path(docs.__file__).resolve().parents[1]
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", ".peers", "storage", "node_modules"} & set(path.relative_to(ROOT).parts)
)


def test_tables_are_current() -> None:
    """What `make docs` writes is what is committed."""
    assert docs.stale(ROOT / "docs") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a document names a file that is there."""
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/threat-model.md", "docs/walkthrough.md", "docs/architecture.md"])
def test_named_files_exist(page: str) -> None:
    """Every file of the code or the tests that a document names is there."""
    named = re.findall(r"`((?:dataproc|tests|modules|examples|docs)/[\w./-]+\.\w+)`", (ROOT / page).read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_attack_stands_in_the_threat_model() -> None:
    """Each file of tests/security is named by the promise that it attacks."""
    text = (ROOT / "docs" / "threat-model.md").read_text()
    files = sorted(path.name for path in (ROOT / "tests" / "security").glob("test_*.py"))
    assert [name for name in files if f"tests/security/{name}" not in text] == []


def test_every_metric_is_told_to_operators() -> None:
    """Each metric of ours stands in docs/operations.md under its name."""
    text = (ROOT / "docs" / "operations.md").read_text()
    names = [
        metric.name.removeprefix("dataproc_") + ("_total" if metric.type == "counter" else "")
        for metric in Metrics().registry.collect()
        if metric.name.startswith("dataproc_")
    ]
    assert names
    assert [name for name in names if f"`{name}" not in text] == []


def test_make_targets_of_the_readme() -> None:
    """Each `make` command of the README is a target."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named - targets == set()
