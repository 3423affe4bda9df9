"""For tests of modules: what the fixture `run_method` gives and raises. Installed, pytest finds the fixtures itself.

Nothing is imported before it is asked for: pytest loads this package in every run where dataproc is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataproc.testing.running import RunMethod
    from dataproc.workbench import Ran, RunFailed

__all__ = ["Ran", "RunFailed", "RunMethod"]


def __getattr__(name: str) -> Any:
    if name == "RunMethod":
        from dataproc.testing import running

        return running.RunMethod
    if name in __all__:
        from dataproc import workbench

        return getattr(workbench, name)
    raise AttributeError(f"module 'dataproc.testing' has no attribute {name!r}")
