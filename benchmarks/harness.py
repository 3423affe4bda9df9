"""How to compare on a noisy machine: turn about, in short blocks, and the median of the rounds' ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal, TypeAlias

Times: TypeAlias = list[float]
Rounds: TypeAlias = dict[str, list[float]]


@dataclass(frozen=True)
class Options:
    """How much is measured. The defaults count; `quick` only shows that everything runs."""

    rounds: int = 7
    blocks: int = 8
    calls: int = 25
    openings: int = 15
    load_seconds: float = 2.0
    sessions: int = 10_000
    files: int = 100_000
    workers: int = 8
    rows: int = 1_000_000
    megabytes: int = 1024

    @classmethod
    def quick(cls) -> Options:
        """A smoke run of some seconds, whose figures mean nothing."""
        return cls(
            rounds=1,
            blocks=1,
            calls=5,
            openings=2,
            load_seconds=0.2,
            sessions=20,
            files=50,
            workers=2,
            rows=1000,
            megabytes=2,
        )


@dataclass(frozen=True)
class Finding:
    """One row: a figure against its target. `sense` says on which side of the target it has to be."""

    scenario: str
    what: str
    value: float
    sense: Literal["at most", "below", "at least"]
    target: float
    unit: str = "×"
    spread: tuple[float, float] | None = None
    seen: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the target is met."""
        if self.sense == "below":
            return self.value < self.target
        return self.value <= self.target if self.sense == "at most" else self.value >= self.target


@dataclass(frozen=True)
class Skipped:
    """A row that could not be measured here, and what to do about it."""

    scenario: str
    why: str


Measured: TypeAlias = "list[Finding | Skipped]"


def p50_by_turns(contestants: Mapping[str, Callable[[int], Times]], options: Options) -> Rounds:
    """The p50 of each contestant in each round. They take turns in blocks of calls."""
    found: Rounds = {name: [] for name in contestants}
    for turn in range(options.rounds):
        times: dict[str, Times] = {name: [] for name in contestants}
        for block in range(options.blocks):
            for name in rotated(list(contestants), turn + block):
                times[name] += contestants[name](options.calls)
        for name, seen in times.items():
            found[name].append(median(seen))
    return found


def by_turns(contestants: Mapping[str, Callable[[], float]], rounds: int) -> Rounds:
    """One figure of each contestant in each round, each round starting with another."""
    found: Rounds = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in rotated(list(contestants), turn):
            found[name].append(contestants[name]())
    return found


def rotated(names: Sequence[str], by: int) -> list[str]:
    """The names, beginning with another one."""
    cut = by % len(names)
    return [*names[cut:], *names[:cut]]


def ratios(rounds: Rounds, ours: str, peer: str) -> list[float]:
    """Ours over the peer's, round by round."""
    return [mine / theirs for mine, theirs in zip(rounds[ours], rounds[peer], strict=True)]


def compared(
    scenario: str,
    what: str,
    rounds: Rounds,
    pair: tuple[str, str],
    sense: Literal["at most", "below", "at least"],
    target: float,
    show: Callable[[float], str],
) -> Finding:
    """The row for a pair: the median of its ratios, with the medians of both as `show` writes them."""
    found = ratios(rounds, *pair)
    seen = {name: show(median(rounds[name])) for name in pair}
    return Finding(scenario, what, median(found), sense, target, spread=(min(found), max(found)), seen=seen)


def milliseconds(seconds: float) -> str:
    """`0.412 ms`."""
    return f"{seconds * 1e3:.3g} ms"
