"""How many calls a second a key may make."""

from __future__ import annotations

from dataproc.clock import Clock
from dataproc.errors import Overloaded
from dataproc.settings import Settings
from dataproc.telemetry import METRICS

REMEMBERED = 10_000  # keys; what is forgotten first has long been quiet


class Rates:
    """A bucket a key, on this server: it holds a burst and is filled at the rate; an empty one refuses."""

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self.rate = settings.request_rate
        self._clock = clock
        burst = settings.request_burst or max(1, round(self.rate or 1))
        self._span = burst / (self.rate or 1)  # seconds that it takes to fill
        self._full: dict[str, float] = {}  # when the bucket of a key will be full again

    def charge(self, key: str) -> None:
        """One call. Raises Overloaded, with the time after which there is room for one."""
        if self.rate is None:
            return
        now = self._clock.monotonic()
        full = max(self._full.get(key, 0.0), now) + 1 / self.rate
        if full - now > self._span + 1e-9:
            METRICS.rejected("request_rate")
            after = round(full - now - self._span, 3)
            raise Overloaded(
                f"the key may make {self.rate:g} calls a second (DATAPROC_REQUEST_RATE), and made more; "
                f"try again in {after:g} s",
                limit="request_rate",
                rate=self.rate,
                used=round((full - now) * self.rate) - 1,
                retry_after=after,
            )
        self._put(key, full)

    def owe(self, key: str, calls: int) -> None:
        """So many calls more, of a request that was let in as one: who comes next waits for them too."""
        if self.rate is not None and calls > 0:
            self._put(key, max(self._full.get(key, 0.0), self._clock.monotonic()) + calls / self.rate)

    def _put(self, key: str, full: float) -> None:
        self._full.pop(key, None)
        while len(self._full) >= REMEMBERED:
            del self._full[next(iter(self._full))]
        self._full[key] = full
