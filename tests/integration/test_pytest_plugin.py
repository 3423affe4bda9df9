"""The fixtures that authors' tests get from the installed package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dataproc.errors import InvalidParams, MethodNotFound
from dataproc.testing import RunFailed, RunMethod

MODULES = Path(__file__).parents[1] / "modules"


@pytest.fixture
def module_folder(request: pytest.FixtureRequest) -> Path:
    """The fixture module that a test names; where tests lie elsewhere than their module, this is what one overrides."""
    return MODULES / str(getattr(request, "param", "prober"))


def test_a_method_runs_confined_as_in_production(run_method: RunMethod) -> None:
    """It sees its session under the fixed name and writes there, and not this folder."""
    assert run_method("write", path="/session/own.txt").result == "worked"
    assert (run_method.session / "own.txt").exists()
    assert run_method("read", path=__file__).result == {"outcome": "ENOENT"}


def test_each_test_has_a_session_of_its_own(run_method: RunMethod) -> None:
    """What the test before has written is not there; what this one puts there, a run finds and may change."""
    assert not list(run_method.session.iterdir())
    (run_method.session / "given.txt").write_text("from the test")
    assert run_method("write", path="/session/given.txt").result == "worked"
    assert list(run_method("write", path="/session/more.txt").files) == ["given.txt", "more.txt"]


@pytest.mark.parametrize("module_folder", ["echo"], indirect=True)
def test_failures_are_told_as_to_a_caller(run_method: RunMethod) -> None:
    """A method that raises, params that are refused, a name that there is not."""
    with pytest.raises(RunFailed, match="raised") as failed:
        run_method("fail")
    assert failed.value.error.code == -32005
    with pytest.raises(InvalidParams):
        run_method("echo", valeu=1)
    with pytest.raises(MethodNotFound):
        run_method("no-such-method")


async def test_it_works_in_asynchronous_tests_too(run_method: RunMethod) -> None:
    """An event loop that runs already is no hindrance."""
    assert run_method("write", path="/session/own.txt").result == "worked"


def test_pytest_is_not_slowed_where_nobody_asks(tmp_path: Path) -> None:
    """With the plugin loaded, a run without its fixtures imports neither the server nor pydantic by it."""
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    assert 'dataproc.testing.plugin' in sys.modules\n"
        "    assert not {'dataproc.workbench', 'dataproc.web', 'pydantic', 'sqlalchemy'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "-p", "no:cacheprovider", "test_other.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
