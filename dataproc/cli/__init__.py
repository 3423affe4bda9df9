"""The `dataproc` command: noun, then verb; `-o json` for programs; one clear line and an exit code when it fails.

Each verb imports what it needs when it runs, so that the light ones answer at once.
"""

from __future__ import annotations

from dataproc.cli.app import main

__all__ = ["main"]
