"""The one error by which a module's code is found to be no module."""

from __future__ import annotations


class ModuleBroken(Exception):  # a state, named as the listing shows it
    """The module cannot be used; `reason` tells its author why, in frames of the module alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
