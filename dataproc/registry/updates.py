"""`Updates`: brings a module to the code that its folder holds now, whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from dataproc.clock import Clock
from dataproc.module import Generation, ModuleBroken
from dataproc.registry.copies import Copies, Signature, StillChanging
from dataproc.registry.definition import read_definition
from dataproc.registry.description import Description, read_description
from dataproc.registry.entry import ModuleEntry
from dataproc.registry.environments import Environments
from dataproc.registry.record import Fault, Record
from dataproc.registry.sources import Source

Describe = Callable[[Generation], Awaitable[dict[str, Any]]]
Retired = Callable[[Generation], Awaitable[None]]

LOOKS = 20  # at a folder that is being written to
BETWEEN_LOOKS = 0.1

log = structlog.get_logger(__name__)


class Updates:
    """The steps of a module's life: copied, described, put in force, retired."""

    def __init__(self, copies: Copies, environments: Environments, describe: Describe, clock: Clock) -> None:
        self._copies, self._environments, self._describe, self._clock = copies, environments, describe, clock
        self.retired: list[Retired] = []

    async def bring(self, record: Record) -> Generation | None:
        """Try what the source holds now; the generation that it took the place of. One attempt at a time.

        What is wrong with the code goes to the record's fault, and an entry in force stays. Other errors of the
        describer pass through and are not remembered.
        """
        async with record.lock:
            source = record.source
            try:
                record.seen, generation = await self._take(record.name, source)
            except ModuleBroken as broken:
                record.seen = await asyncio.to_thread(source.signature)
                self._broken(record, broken.reason)
                return None
            except (StillChanging, OSError) as error:
                record.seen = None  # the next look tries again
                self._broken(record, f"its folder cannot be read whole ({type(error).__name__})")
                return None
            if record.entry is not None and record.entry.generation.digest == generation.digest:
                record.fault = None
                await self.retire(generation)
                return None
            return await self._put_in_force(record, generation)

    async def retire(self, generation: Generation) -> None:
        """Tell those who may still run it; when they have done with it, delete the copy."""
        for callback in self.retired:
            try:
                await callback(generation)
            except Exception:
                log.exception("module.retire_failed", module=generation.module)
        await asyncio.to_thread(self._copies.drop, generation)

    async def _take(self, name: str, source: Source) -> tuple[Signature, Generation]:
        """The generation of a folder that holds still, with what it was seen as."""
        for _ in range(LOOKS - 1):
            seen = await asyncio.to_thread(source.signature)
            try:
                return seen, await asyncio.to_thread(source.take, name, self._copies)
            except StillChanging:
                await asyncio.sleep(BETWEEN_LOOKS)
        return await asyncio.to_thread(source.signature), await asyncio.to_thread(source.take, name, self._copies)

    async def _put_in_force(self, record: Record, generation: Generation) -> Generation | None:
        try:
            generation = self._environments.equip(generation)
            entry = ModuleEntry.of(generation, await self._described(generation))
        except ModuleBroken as broken:
            self._broken(record, broken.reason)
            await self.retire(generation)
            return None
        except BaseException:
            record.seen = None
            await self.retire(generation)
            raise
        before, record.entry, record.fault = record.entry, entry, None
        log.info("module.ready", module=record.name, version=entry.version, generation=generation.digest[:12])
        return before.generation if before is not None else None

    async def _described(self, generation: Generation) -> Description:
        """What the module offers. One of scripts says it in files, so nothing of it is run."""
        if generation.kind == "script":
            return await asyncio.to_thread(read_definition, generation.module, Path(generation.location))
        return read_description(generation.module, await self._describe(generation))

    def _broken(self, record: Record, reason: str) -> None:
        if record.fault is None or record.fault.reason != reason:
            log.warning("module.broken", module=record.name, reason=reason, in_force=record.entry is not None)
        record.fault = Fault(reason, self._clock.monotonic())
