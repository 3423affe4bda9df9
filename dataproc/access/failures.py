"""Wrong credentials, counted by the address that they came from, and credentials that were good."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, ip_address

from dataproc.clock import Clock
from dataproc.settings import Settings

STEP = 0.1  # seconds that each failure beyond the allowed ones adds to the next
LONGEST = 1.0  # seconds
HELD = 1000  # refusals held back at once: a flood must not fill the memory
REMEMBERED = 10_000  # addresses, and credentials
AGAIN = 3600.0  # seconds after which the use of a credential is told anew


class Failures:
    """Slows down the refusals of an address that sends many wrong credentials. Good ones are never held back."""

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self._allowed = settings.failed_credentials
        self._counts: dict[str, tuple[float, float]] = {}  # how many, as of when
        self._held = 0

    def note(self, client: str) -> float:
        """One more. Seconds that its refusal is to be held back: 0 while they are few."""
        place, now = _network(client), self._clock.monotonic()
        count, since = self._counts.pop(place, (0.0, now))
        count = max(0.0, count - (now - since) * self._allowed / 60) + 1
        while len(self._counts) >= REMEMBERED:
            del self._counts[next(iter(self._counts))]
        self._counts[place] = count, now
        return min(LONGEST, STEP * max(0.0, count - self._allowed))

    async def hold(self, seconds: float) -> None:
        """Hold a refusal back; where many are held already, it goes out at once."""
        if self._held >= HELD:
            return
        self._held += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._held -= 1


class Seen:
    """Which credentials were used from where: each is told once, and again when that is an hour ago."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}

    def fresh(self, who: str, client: str) -> bool:
        """Whether this use is worth telling."""
        now, pair = self._clock.monotonic(), (who, client)
        told = self._told.get(pair)
        if told is not None and now - told < AGAIN:
            return False
        self._told.pop(pair, None)
        while len(self._told) >= REMEMBERED:
            del self._told[next(iter(self._told))]
        self._told[pair] = now
        return True


def _network(client: str) -> str:
    """Who is counted together: an IPv4 address; of IPv6, which a single machine has in plenty, its /64."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return address.packed[:8].hex()
    return client
