"""`Registry`: the modules that can be called now, each in its generation in force."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from importlib.metadata import EntryPoint
from typing import IO, Any, TypeAlias

import structlog

from dataproc.clock import Clock
from dataproc.errors import ModuleNotFound
from dataproc.module import Generation
from dataproc.registry.changes import changes
from dataproc.registry.copies import Copies
from dataproc.registry.entry import ModuleEntry
from dataproc.registry.environments import Environments
from dataproc.registry.names import folded
from dataproc.registry.record import Record, claims
from dataproc.registry.sources import Found, find_sources, installed
from dataproc.registry.updates import Describe, Retired, Updates
from dataproc.settings import Settings

DESCRIBING = 4  # modules described at once, for a list

Rows: TypeAlias = "list[dict[str, Any]]"
Generations: TypeAlias = "list[Generation]"

log = structlog.get_logger(__name__)


class Registry:
    """Finds modules, copies their code, has them described, and follows their changes.

    describe: asks the engine for a generation's own description; raises ModuleBroken where it has none. Any other
    error passes through to the caller and is not remembered. points: the entry points to serve; by default those
    that are installed.
    """

    def __init__(
        self, settings: Settings, describe: Describe, clock: Clock, points: Sequence[EntryPoint] | None = None
    ) -> None:
        self._dir = settings.modules_dir.absolute()
        self._copies = Copies(settings.node_dir / "generations")
        self._clock = clock
        self._updates = Updates(self._copies, Environments(settings.environments), describe, clock)
        self._records: dict[str, Record] = {}
        self._entries: dict[str, ModuleEntry] = {}  # by name and alias: what the hot path reads
        self._warned: tuple[str, ...] = ()
        self._points = installed() if points is None else points
        self._tasks: set[asyncio.Task[None]] = set()
        self._describing: dict[str, asyncio.Task[None]] = {}
        self._held: IO[bytes] | None = None

    async def start(self) -> None:
        """Find the modules and follow their changes. Nothing is described before it is needed."""
        self._held = await asyncio.to_thread(self._copies.hold)
        self._place(await asyncio.to_thread(find_sources, self._dir, self._points))
        self._background(self._follow())

    async def stop(self) -> None:
        """End the following. Entries stay as they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._held is not None:
            self._held.close()

    def on_retired(self, callback: Retired) -> None:
        """Have a callback told of each generation that is out of force; when it is done the copy is deleted."""
        self._updates.retired.append(callback)

    async def resolve(self, name: str) -> ModuleEntry:
        """The module of that name or alias, described. ModuleNotFound: `data.name`, and `data.reason` if broken.

        Does not suspend for a name that was resolved before.
        """
        if (known := self._entries.get(name)) is not None:
            return known
        wanted = folded(name)
        if (known := self._entries.get(wanted)) is not None:
            return known
        record = self._records.get(wanted) or await self._by_alias(wanted)
        if record is None:
            raise ModuleNotFound(f"there is no module {name[:200]!r}", module=name[:200])
        await self._describe(record)
        entry = self._entries[wanted] = record.ready()
        return entry

    async def list(self) -> Rows:
        """Every module, by name: `{name, aliases, version, description, state, methods}`, with `error` for a broken
        one, `reload_error` where an older generation stays in force, `warnings` where its alias is not served.
        """
        await self._describe_all()
        claimed = self._claims()
        return [self._row(record, claimed) for _, record in sorted(self._records.items())]

    async def describe_module(self, name: str) -> dict[str, Any]:
        """The module's row of `list` with its methods in full; ModuleNotFound as `resolve`."""
        entry = await self.resolve(name)
        await self._describe_all()
        record = self._records.get(entry.name)
        if record is None:
            raise ModuleNotFound(f"module {entry.name!r} went away", module=entry.name)
        return {**self._row(record, self._claims()), **record.ready().published()}

    async def refresh(self) -> None:
        """Look for changes now, and bring every module that is in use to its newest working generation."""
        for gone in self._place(await asyncio.to_thread(find_sources, self._dir, self._points)):
            self._retire(gone)
        for record in list(self._records.values()):
            try:
                if record.in_use and await asyncio.to_thread(record.source.signature) != record.seen:
                    await self._update(record)
            except Exception as error:  # one that cannot be looked at, or described now, keeps no other waiting
                log.warning("module.not_refreshed", module=record.name, error=type(error).__name__)

    def _place(self, found: Found) -> Generations:
        """Take the sources over; the generations in force of the modules that went."""
        for warning in set(found.warnings) - set(self._warned):
            log.warning("modules.not_served", reason=warning)
        self._warned = found.warnings
        gone = [self._records.pop(name) for name in set(self._records) - set(found.sources)]
        for name, source in found.sources.items():
            record = self._records.setdefault(name, Record(name, source))
            if record.source != source:
                record.source, record.seen = source, None
        if gone:
            self._entries.clear()
        return [record.entry.generation for record in gone if record.entry is not None]

    def _claims(self) -> dict[str, Any]:
        return claims(self._records.values(), self._records)

    def _row(self, record: Record, claimed: dict[str, Any]) -> dict[str, Any]:
        return record.row(record.entry is not None and claimed.get(record.entry.alias) == [record])

    async def _by_alias(self, wanted: str) -> Record | None:
        await self._describe_all()
        claimants = self._claims().get(wanted, [])
        if len(claimants) > 1:
            names = ", ".join(sorted(record.name for record in claimants))
            raise ModuleNotFound(f"more than one module calls itself {wanted!r}; use one of: {names}", module=wanted)
        return claimants[0] if claimants else None

    async def _describe_all(self) -> None:
        """Describe what was not yet; what is wrong stays in the records."""
        gate = asyncio.Semaphore(DESCRIBING)

        async def one(record: Record) -> None:
            async with gate:
                try:
                    await self._describe(record)
                except Exception as error:
                    log.warning("module.not_described", module=record.name, error=type(error).__name__)

        now = self._clock.monotonic()
        if waiting := [record for record in self._records.values() if record.may_try(now)]:
            await asyncio.gather(*(one(record) for record in waiting))

    async def _describe(self, record: Record) -> None:
        """Have a module in force if it can be, once for all who wait. One who leaves does not end it for the others."""
        if not record.may_try(self._clock.monotonic()):
            return
        if (under_way := self._describing.get(record.name)) is None:
            under_way = self._describing[record.name] = self._background(self._update(record))
            under_way.add_done_callback(lambda _: self._describing.pop(record.name, None))
        await asyncio.shield(under_way)

    async def _update(self, record: Record) -> None:
        before = await self._updates.bring(record)
        self._entries.clear()
        if before is not None:
            self._retire(before)
        if record.entry is not None and self._records.get(record.name) is not record:
            self._retire(record.entry.generation)  # removed while it was described

    async def _follow(self) -> None:
        async with contextlib.aclosing(changes(self._dir)) as looks:
            async for _ in looks:
                try:
                    await self.refresh()
                except Exception:
                    log.exception("modules.refresh_failed")

    def _retire(self, generation: Generation) -> None:
        log.info("module.retired", module=generation.module, generation=generation.digest[:12])
        self._background(self._updates.retire(generation))

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who waited was told; who left does not want to be
