"""What callers do with runs: submit them, ask for them, wait, cancel, read what they said, repeat a request safely."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from dataproc.access.scopes import may_exec
from dataproc.database.cancels import Cancels
from dataproc.database.idempotency import Claim, Claimed, IdempotencyKeys
from dataproc.database.runs import RunStore, Wanted
from dataproc.errors import Conflict, NotFound, StorageUnavailable, raised_by_name
from dataproc.events import Event
from dataproc.executor import Call, Executor
from dataproc.runs import Run, RunStatus
from dataproc.types import Json, Principal
from dataproc.under_way import UnderWay

ELSEWHERE = 0.25  # seconds between looks at a run of another server
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """A run as its caller sees it now. place: in the queue, counted from 1; None once it has left it."""

    run: Run
    place: int | None = None


class Ledger:
    """The runs of this database, as one server sees them.

    Run ids of others are unknown to a caller; None in the place of one is an operator, who knows all.
    """

    def __init__(self, executor: Executor, runs: RunStore, keys: IdempotencyKeys, cancels: Cancels) -> None:
        self._executor, self._runs, self._keys, self._cancels = executor, runs, keys, cancels
        self._tasks: set[asyncio.Task[None]] = set()
        self.close_session: Callable[[str], Awaitable[None]] = _keep

    # -- new runs -------------------------------------------------------------------------------------------------

    async def submit(self, call: Call, claim: Claim | None = None, *, closes: bool = False) -> Run:
        """Have a call run whether or not anybody waits; its record is durable when this returns."""
        entry, method = await self._executor.plan(call)
        self._executor.admission.refuse_if_full(call.principal.key)
        live = self._executor.begin(call, entry, method)
        live.recorded = live.submitted = True
        live.closes = closes
        try:
            known = await self._record(live.as_run(), claim)
        except BaseException:
            self._executor.drop(live)
            raise
        if known is not None:
            self._executor.drop(live)
            return await self._same(known, claim)
        self.spawn(live)
        return live.as_run()

    async def run_once(self, call: Call, claim: Claim) -> Run:
        """Run a call under its key, or wait for the run that the key stands for. The record of the end."""
        entry, method = await self._executor.plan(call)
        self._executor.admission.refuse_if_full(call.principal.key)
        live = self._executor.begin(call, entry, method)
        live.recorded = True
        try:
            known = await self._record(live.as_run(), claim)
        except BaseException:
            self._executor.drop(live)
            raise
        if known is not None:
            self._executor.drop(live)
            return await self._end_of((await self._same(known, claim)).id)
        await asyncio.shield(self.spawn(live))
        if live.refused:
            await self._keys.release(claim, call.run_id)
        return live.as_run()

    async def replay(self, claim: Claim) -> Run | None:
        """How the run ended that a key stands for, once it has; None for a key that is new."""
        known = await self._keys.find(claim)
        return None if known is None else await self._end_of((await self._same(known, claim)).id)

    async def known(self, claim: Claim) -> Run | None:
        """The run that a key stands for, as it is now; None for a key that is new."""
        known = await self._keys.find(claim)
        return None if known is None else await self._same(known, claim)

    async def _record(self, run: Run, claim: Claim | None) -> Claimed | None:
        if claim is not None:
            return await self._keys.claim(claim, run)
        await self._runs.record(run)
        return None

    async def _same(self, known: Claimed, claim: Claim | None) -> Run:
        if claim is not None and known.digest != claim.digest:
            raise Conflict(
                "this idempotency key was used for a call with other arguments: take a new key for a new call"
            )
        return (await self._now(known.run)).run

    async def _end_of(self, run_id: str) -> Run:
        while True:
            seen = await self._wait(run_id, None)
            if seen.run.status.ended:
                return seen.run
            if run_id not in self._executor.live:
                raise StorageUnavailable("the server is stopping; ask again under the same key")

    def spawn(self, live: UnderWay) -> asyncio.Task[None]:
        """See a run through, whether or not anybody waits."""
        task = asyncio.get_running_loop().create_task(self._see_through(live), name=f"run {live.call.run_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _see_through(self, live: UnderWay) -> None:
        ended = await self._executor.run(live)
        if live.closes and not live.shelved:
            await self.close_after(ended.run, ended.session)

    async def close_after(self, run_id: str, session: str) -> None:
        """End the session of a run that was to end with it; several such runs, with the last of them."""
        try:
            if not any(live.closes for live in self._executor.live.values() if live.call.session == session):
                await self.close_session(session)
            await self._runs.closed(run_id)
        except StorageUnavailable as error:
            log.warning("session_end_failed", session_id=session, run_id=run_id, exc_info=error)

    async def settle(self) -> None:
        """Wait for all runs that are seen through here."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- known runs -----------------------------------------------------------------------------------------------

    async def get(self, principal: Principal | None, run_id: str) -> Seen:
        """A run of the caller's. Raises NotFound."""
        seen = await self._now(run_id)
        _require_own(principal, seen.run)
        return seen

    async def wait(self, principal: Principal | None, run_id: str, seconds: float) -> Seen:
        """The same once it has ended, or when so many seconds have passed."""
        await self.get(principal, run_id)
        return await self._wait(run_id, seconds)

    async def _now(self, run_id: str) -> Seen:
        live = self._executor.live.get(run_id)
        if live is not None and live.outcome is not None:
            await live.wait(None)  # for its record: nobody is told of an end that might be lost
        if live is None or live.outcome is not None:
            return Seen(await self._runs.get(run_id))
        place = None if live.place is None else self._executor.admission.position(live.place)
        return Seen(live.as_run(), place)

    async def _wait(self, run_id: str, seconds: float | None) -> Seen:
        live = self._executor.live.get(run_id)
        if live is not None:
            await live.wait(seconds)
            return await self._now(run_id)
        return await self._wait_elsewhere(run_id, seconds)

    async def _wait_elsewhere(self, run_id: str, seconds: float | None) -> Seen:
        loop = asyncio.get_running_loop()
        until = None if seconds is None else loop.time() + seconds
        while True:
            seen = await self._now(run_id)
            late = until is not None and loop.time() >= until
            if seen.run.status.ended or late or self._executor.stopping:
                return seen
            await asyncio.sleep(ELSEWHERE if until is None else min(ELSEWHERE, max(0.0, until - loop.time())))

    async def page(self, principal: Principal | None, wanted: Wanted, limit: int) -> tuple[list[Seen], str | None]:
        """Runs of the caller's, newest first, and where the next page begins."""
        states = wanted.states
        unfinished = {RunStatus.QUEUED, RunStatus.RUNNING}
        if unfinished & set(states):
            wanted = replace(wanted, states=tuple({*states, *unfinished}))  # a record may be a step behind
        if principal is not None:
            wanted = replace(wanted, key=principal.key, session=principal.session)
        found = await self._runs.page(wanted, limit + 1)
        more = found[limit - 1].id if len(found) > limit else None
        seen = [self._fresh(run) for run in found[:limit] if _may_see(principal, run)]
        return [each for each in seen if not states or each.run.status in states], more

    def _fresh(self, run: Run) -> Seen:
        live = self._executor.live.get(run.id)
        if live is None or live.outcome is not None:
            return Seen(run)
        place = None if live.place is None else self._executor.admission.position(live.place)
        return Seen(live.as_run(), place)

    async def cancel(self, principal: Principal | None, run_id: str) -> None:
        """Begin to end a run; one that has ended stays as it is. Another server's is ended within seconds.

        Raises NotFound.
        """
        run = (await self.get(principal, run_id)).run
        if not self._executor.cancel(run_id) and not run.status.ended:
            await self._cancels.ask(run_id)

    async def log(self, principal: Principal | None, run_id: str, offset: int, limit: int) -> tuple[str, int, bool]:
        """Text of a run's output from a byte on, where to go on, and whether that is its end."""
        run = (await self.get(principal, run_id)).run
        text, to, whole = await asyncio.to_thread(self._executor.folder.text, run_id, offset, limit)
        return text, to, whole and run.status.ended

    async def watch(
        self, principal: Principal, run_id: str, after: int, patience: float
    ) -> AsyncIterator[Event | None]:
        """The events of a run after that number, as they come, until its end. None where `patience` seconds pass."""
        await self.get(principal, run_id)
        return self._watch(run_id, after, patience)

    async def _watch(self, run_id: str, after: int, patience: float) -> AsyncIterator[Event | None]:
        live = self._executor.live.get(run_id)
        if live is not None:
            events, shown = live.events, self._executor.folder.shown
            events.watch()
            try:
                while run_id in self._executor.live:
                    for event in events.since(after):
                        after = event.id
                        yield shown(run_id, event)
                    if not await events.changed(patience):
                        yield None
            finally:
                events.watchers -= 1
        async for found in self._watch_record(run_id, after, patience):
            yield found

    async def _watch_record(self, run_id: str, after: int, patience: float) -> AsyncIterator[Event | None]:
        while True:
            run = (await self._wait_elsewhere(run_id, 0)).run
            for event in await asyncio.to_thread(self._executor.folder.read, run, after):
                after = event.id
                yield self._executor.folder.shown(run_id, event)
            if run.status.ended or self._executor.stopping:
                return
            if not (await self._wait_elsewhere(run_id, patience)).run.status.ended:
                yield None


async def _keep(session: str) -> None:
    """Sessions that nobody ends."""


def _may_see(principal: Principal | None, run: Run) -> bool:
    return principal is None or may_exec(principal, run.module, run.method)


def _require_own(principal: Principal | None, run: Run) -> None:
    """NotFound for a run of somebody else's, as for one that there never was."""
    if principal is None:
        return
    mine = run.key == principal.key if principal.session is None else run.session == principal.session
    if not mine or not may_exec(principal, run.module, run.method):
        raise NotFound("no such run")


def claim_of(principal: Principal, name: str, call: tuple[str, str, Json, Json, Json]) -> Claim:
    """The claim of a caller's key. call: canonical module, method, input, output, params."""
    text = json.dumps(call, sort_keys=True, separators=(",", ":"))
    scope = principal.session or f"key:{principal.key}"
    return Claim(scope, name, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())


def result_of(run: Run) -> Json:
    """What the method of a run that has ended returned; raises the error that it ended with, with the run's id."""
    if run.status is RunStatus.COMPLETED:
        return run.result
    told = run.error or {"message": "", "data": {}}
    data = dict(told["data"])
    raise raised_by_name(str(data.pop("name", "")), told["message"], {**data, "run_id": run.id})
