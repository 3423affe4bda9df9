"""Who runs now and who waits: a bounded number of runs, and a bounded queue that is fair between keys."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from dataproc.errors import Overloaded
from dataproc.settings import Settings

USUAL = 0.05  # seconds that a run takes, until some have been seen
LONGEST_WAIT = 60.0  # the most that `retry_after` says


@dataclass(slots=True, eq=False)
class Place:
    """A slot, or a place in the line for one. alone: no other run that is to be alone runs in the session then."""

    key: str
    session: str
    alone: bool = False
    turn: asyncio.Future[bool] | None = None  # None: it has its slot


class Admission:
    """Hands out `concurrent_runs` slots. Keys that wait take turns; within a key the first that may run comes first.

    What a key, a session, or runs that are to be alone may not use is left to others: a free slot means that nobody
    who waits may have it.
    """

    def __init__(self, settings: Settings) -> None:
        self.slots = settings.concurrent_runs
        self.of_key = settings.concurrent_runs_per_key or self.slots
        self.of_session = settings.concurrent_runs_per_session or self.slots
        self.queue_limit = settings.queue_limit
        self.key_limit = max(1, int(settings.queue_limit * settings.queue_share)) if settings.queue_limit else 0
        self.running = self.waiting = 0
        self._lines: dict[str, deque[Place]] = {}  # in the order of their turns
        self._keys: dict[str, int] = {}  # runs of each
        self._sessions: dict[str, int] = {}
        self._alone: set[str] = set()  # sessions in which a run is alone
        self._usual = USUAL

    def refuse_if_full(self, key: str) -> None:
        """Raises Overloaded where the queue, or the key's share of it, has no room for one more."""
        self._refuse_above(self.queue_limit, self.waiting, "DATAPROC_QUEUE_LIMIT", "calls wait")
        waiting = len(self._lines.get(key, ()))
        self._refuse_above(self.key_limit, waiting, "DATAPROC_QUEUE_SHARE", "calls of this key wait")

    def enter(self, key: str, session: str, *, alone: bool = False, promised: bool = False) -> Place:
        """A slot, or a place in the line; `wait` for it then. `promised`: it has been let in, however long the line.

        Raises Overloaded where the queue, or the key's share of it, is full.
        """
        place = Place(key, session, alone)
        if self.running < self.slots and self._may_run(place):
            self._take(place)
            return place
        if not promised:
            self.refuse_if_full(key)
        place.turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(key, deque()).append(place)
        self.waiting += 1
        return place

    async def wait(self, place: Place) -> bool:
        """Wait for the slot; False where `give_up` came first. Cancelled, it gives the place up."""
        if place.turn is None:
            return True
        try:
            given = await place.turn
        except asyncio.CancelledError:
            if place.turn.cancelled():
                self._step_out(place)
            elif place.turn.result():
                self.leave(place, None)  # the slot was given and nobody is there to use it
            raise
        if given:
            place.turn = None
        return given

    def give_up(self, place: Place) -> None:
        """Leave the line; whoever waits for the place is told."""
        if place.turn is not None and not place.turn.done():
            self._step_out(place)
            place.turn.set_result(False)

    def position(self, place: Place) -> int | None:
        """How many get their turn before it, and itself; None once it has its slot."""
        if place.turn is None or place.turn.done():
            return None
        own = self._lines[place.key].index(place)
        ahead, before = own, True
        for key, line in self._lines.items():
            if key == place.key:
                before = False
            else:
                ahead += min(len(line), own + before)
        return ahead + 1

    def leave(self, place: Place, took: float | None) -> None:
        """Give a slot back, to whoever's turn it is. took: seconds of the run, for the estimate of a wait."""
        if took is not None:
            self._usual += (took - self._usual) / 16
        self.running -= 1
        _less(self._keys, place.key)
        _less(self._sessions, place.session)
        if place.alone:
            self._alone.discard(place.session)
        while self.waiting and self.running < self.slots and (following := self._next()) is not None:
            self._take(following)
            assert following.turn is not None
            following.turn.set_result(True)

    def _take(self, place: Place) -> None:
        self.running += 1
        self._keys[place.key] = self._keys.get(place.key, 0) + 1
        self._sessions[place.session] = self._sessions.get(place.session, 0) + 1
        if place.alone:
            self._alone.add(place.session)

    def _may_run(self, place: Place) -> bool:
        return (
            self._keys.get(place.key, 0) < self.of_key
            and self._sessions.get(place.session, 0) < self.of_session
            and not (place.alone and place.session in self._alone)
        )

    def _next(self) -> Place | None:
        """Take out of the lines who comes next, and put its key at the end of the turns."""
        for key, line in self._lines.items():
            for place in line:
                if self._may_run(place) and place.turn is not None and not place.turn.done():
                    self._step_out(place)
                    if line:
                        self._lines[key] = self._lines.pop(key)
                    return place
        return None

    def _step_out(self, place: Place) -> None:
        self.waiting -= 1
        line = self._lines[place.key]
        line.remove(place)
        if not line:
            del self._lines[place.key]

    def _refuse_above(self, limit: int, used: int, setting: str, what: str) -> None:
        if used >= limit:
            after = round(min(LONGEST_WAIT, max(1.0, self._usual * (self.waiting + 1) / self.slots)), 1)
            raise Overloaded(
                f"{used} {what}, the limit is {limit} ({setting}); try again in {after:g} s",
                limit=limit,
                used=used,
                retry_after=after,
            )


def _less(counts: dict[str, int], name: str) -> None:
    left = counts[name] - 1
    if left:
        counts[name] = left
    else:
        del counts[name]
