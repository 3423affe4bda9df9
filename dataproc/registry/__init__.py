"""The modules that there are: found, copied, described, and followed as they change. Nothing of them is imported."""

from dataproc.module import Generation, ModuleBroken
from dataproc.registry.description import Limits, MethodInfo, Script
from dataproc.registry.entry import ModuleEntry
from dataproc.registry.registry import Registry
from dataproc.registry.updates import Describe

__all__ = ["Describe", "Generation", "Limits", "MethodInfo", "ModuleBroken", "ModuleEntry", "Registry", "Script"]
