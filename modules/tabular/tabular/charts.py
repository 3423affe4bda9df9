"""Charts as PNG: labelled, dates as dates, readable without a look at the code."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

Kind = Literal["line", "bar", "hist", "scatter"]
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5")
TICKS = 25  # more names than that under a bar chart cannot be read


def draw(
    kind: Kind,
    x: list[Any],
    series: dict[str, list[Any]],
    labels: tuple[str, str],
    title: str,
    size: tuple[float, float],
) -> Figure:
    """A figure of one chart. `x` has a value for each of every series; `labels` are those of the two axes."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    DRAWN[kind](axes, x, series)
    _dress(axes, kind, x, series, labels, title)
    return figure


def save(figure: Figure, target: Path) -> None:
    """Write the PNG, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{uuid4().hex}.part")
    try:
        figure.savefig(part, format="png", dpi=144)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _line(axes: Axes, x: list[Any], series: dict[str, list[Any]]) -> None:
    for number, (label, values) in enumerate(series.items()):
        marker = "o" if len(x) <= 40 else None
        axes.plot(x, values, label=label, color=_colour(number), linewidth=1.6, marker=marker, markersize=4)


def _scatter(axes: Axes, x: list[Any], series: dict[str, list[Any]]) -> None:
    size, alpha = (22, 0.75) if len(x) <= 500 else (9, 0.45)
    for number, (label, values) in enumerate(series.items()):
        axes.scatter(x, values, label=label, color=_colour(number), s=size, alpha=alpha, linewidths=0)


def _bar(axes: Axes, x: list[Any], series: dict[str, list[Any]]) -> None:
    width = 0.8 / len(series)
    for number, (label, values) in enumerate(series.items()):
        places = [place + (number - (len(series) - 1) / 2) * width for place in range(len(x))]
        axes.bar(places, [value or 0 for value in values], width, label=label, color=_colour(number))
    step = -(-len(x) // TICKS)
    names = [str(value) for value in x[::step]]
    turned = sum(map(len, names)) > 70
    axes.set_xticks(range(0, len(x), step), names, rotation=45 if turned else 0, ha="right" if turned else "center")


def _hist(axes: Axes, x: list[Any], series: dict[str, list[Any]]) -> None:
    axes.hist(x, bins="auto" if len(x) < 10_000 else 60, color=_colour(0), edgecolor="white", linewidth=0.4)


DRAWN = {"line": _line, "scatter": _scatter, "bar": _bar, "hist": _hist}


def _dress(
    axes: Axes, kind: Kind, x: list[Any], series: Sequence[str] | dict[str, Any], labels: tuple[str, str], title: str
) -> None:
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", pad=12)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(axis="both" if kind == "scatter" else "y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if kind != "bar" and any(isinstance(value, datetime.date) for value in x):
        locator = AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    if len(series) > 1:
        axes.legend(frameon=False)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
