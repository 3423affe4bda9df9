"""A module that is a package inside its folder."""

from dataproc import Module

from .spoken import GREETING

module = Module("packaged", version="1")


@module.method
def greet(name: str = "you") -> str:
    """A greeting from a file of the package."""
    return f"{GREETING}, {name}"
