"""What an evaluation looks like: confusion matrix, ROC curves, predictions against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import auc, roc_curve

Array = np.ndarray[Any, Any]
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0")
NUMBERED = 20  # classes up to which each cell of a matrix shows its number
CURVES = 10  # classes up to which each has its own curve


def confusion(matrix: Array, classes: list[str], title: str) -> Figure:
    """Rows are the truth; colour is the share of a row, so that rare classes are seen too."""
    count = len(classes)
    side = min(14.0, 2.6 + 0.55 * count)
    figure, axes = _figure((side + 1.2, side), title)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(count), classes, rotation=45 if max(map(len, classes)) > 3 else 0)
    axes.set_yticks(range(count), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    axes.set_xticks(np.arange(-0.5, count), minor=True)
    axes.set_yticks(np.arange(-0.5, count), minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if count <= NUMBERED:
        for row, column in np.ndindex(count, count):
            if number := int(matrix[row, column]):
                colour = "white" if shares[row, column] > 0.5 else "#222222"
                axes.text(column, row, f"{number}", ha="center", va="center", color=colour, fontsize=10)
    figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the row").outline.set_visible(False)
    return figure


def roc(truth: Array, scores: Array, classes: list[str], title: str) -> tuple[Figure, dict[str, float]]:
    """One curve a class against the rest, and the one over all; the areas by class, that over all as `all`."""
    figure, axes = _figure((7.2, 6), title)
    hits = np.column_stack([truth == name for name in classes])
    areas: dict[str, float] = {}
    for number, name in enumerate(classes):
        if not 0 < hits[:, number].sum() < len(truth):
            continue  # a class that is not in the rows, or alone in them, has no curve
        false, true, _ = roc_curve(hits[:, number], scores[:, number])
        areas[name] = float(auc(false, true))
        if len(classes) <= CURVES:
            axes.plot(false, true, color=COLOURS[number], linewidth=1.4, label=f"{name}   {areas[name]:.3f}")
    false, true, _ = roc_curve(hits.ravel(), scores.ravel())
    areas["all"] = float(auc(false, true))
    axes.plot(false, true, color="#222222", linewidth=2.4, label=f"all   {areas['all']:.3f}")
    axes.plot([0, 1], [0, 1], color="#aaaaaa", linewidth=1, linestyle="--", label="guessing   0.500")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_aspect("equal")
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="class   area", frameon=False, loc="lower right", fontsize=9)
    return figure, areas


def against(truth: Array, predicted: Array, name: str, title: str) -> Figure:
    """Predicted quantities against the true ones; on the line they are equal."""
    figure, axes = _figure((6.6, 6), title)
    size, alpha = (22, 0.7) if len(truth) <= 500 else (9, 0.4)
    axes.scatter(truth, predicted, s=size, alpha=alpha, color=COLOURS[0], linewidths=0)
    ends = [float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))]
    axes.plot(ends, ends, color="#aaaaaa", linewidth=1, linestyle="--")
    axes.set(xlabel=f"{name}, truth", ylabel=f"{name}, predicted")
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid4().hex}.part")
    try:
        figure.savefig(part, format="png", dpi=144)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _figure(size: tuple[float, float], title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", pad=12)
    return figure, axes
