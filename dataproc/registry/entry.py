"""`ModuleEntry`: a module that works, as the executor and the lists see it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dataproc.errors import MethodNotFound
from dataproc.module import Generation
from dataproc.registry.description import Description, MethodInfo
from dataproc.registry.names import folded


@dataclass(frozen=True, slots=True)
class ModuleEntry:
    """One generation of a module with its methods. It stays valid for runs under way when a newer one is in force."""

    name: str
    generation: Generation
    alias: str
    version: str
    description: str
    methods: dict[str, MethodInfo]

    @classmethod
    def of(cls, generation: Generation, told: Description) -> ModuleEntry:
        """The entry of a generation that described itself."""
        known = replace(generation, fork=told.fork)
        return cls(generation.module, known, folded(told.alias), told.version, told.text, told.methods)

    def method(self, name: str) -> MethodInfo:
        """The method of that name; MethodNotFound names those that there are."""
        found = self.methods.get(name)
        if found is None:
            there = ", ".join(sorted(self.methods)[:20]) or "none"
            raise MethodNotFound(
                f"module {self.name!r} has no method {name[:200]!r}; it has: {there}",
                module=self.name,
                method=name[:200],
            )
        return found

    def published(self) -> dict[str, Any]:
        """The methods in full, for `describe_module`."""
        return {"methods": [method.published() for method in self.methods.values()]}
