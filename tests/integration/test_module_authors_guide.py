"""The guide for module authors does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "module-authors.md"


def test_the_first_module_and_its_test_work_as_written(tmp_path: Path) -> None:
    """Copied from the page into a folder, the tests of the page pass over the module of the page."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    module = next(block for block in blocks if 'Module("sampler"' in block)
    walled = next(block for block in blocks if "def test_draw(run_method)" in block)
    test = next(block for block in blocks if "def test_draw(tmp_path)" in block)
    (tmp_path / "modules" / "sampler").mkdir(parents=True)
    (tmp_path / "modules" / "sampler" / "module.py").write_text(module)
    (tmp_path / "modules" / "sampler" / "tests").mkdir()
    (tmp_path / "modules" / "sampler" / "tests" / "test_walled.py").write_text(walled)
    (tmp_path / "test_draw.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "."]
    ran = subprocess.run(
        [*command, "test_draw.py", "modules/sampler"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert "4 passed" in ran.stdout
