"""Runs of xData script modules: what they are given before, and what is kept of them afterwards."""

from dataproc.scripts.scripts import Asked, Scripts

__all__ = ["Asked", "Scripts"]
