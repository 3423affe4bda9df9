"""The pytest plugin: `run_method` runs a method of the module under test, confined as in production, with no server.

Imports nothing but pytest until a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dataproc.testing.running import RunMethod, Workbenches

TEST_FOLDERS = frozenset({"test", "tests"})


@pytest.fixture
def module_folder(request: pytest.FixtureRequest) -> Path:
    """The folder of the module under test: the nearest above the test file that holds one.

    Override this fixture where tests live elsewhere.
    """
    from dataproc.testing.running import holds_module

    for folder in request.path.parents:
        if folder.name not in TEST_FOLDERS and holds_module(folder):
            return folder
    pytest.fail(
        f"no folder above {request.path} holds a module: put the test beside module.py or below it, or define a "
        "fixture `module_folder` that returns its path",
        pytrace=False,
    )


@pytest.fixture(scope="session")
def _workbenches() -> Iterator[Workbenches]:
    from dataproc.testing.running import Workbenches

    with Workbenches() as kept:
        yield kept


@pytest.fixture
def run_method(module_folder: Path, _workbenches: Workbenches) -> Iterator[RunMethod]:
    """Runs methods in a session of this test's own: `run_method("draw", rows=3).result`.

    `run_method.session` is the session directory: put files there before a run, look at them after it.
    """
    with _workbenches.running(module_folder) as running:
        yield running
