"""Estimators by name, trained step by step, and kept in files that run no code when they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4
from zipfile import BadZipFile

import numpy as np
import skops.io
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Algorithm = Literal["forest", "boosting", "linear", "neighbours"]
Array = np.ndarray[Any, Any]
FORMAT = "dataproc-learn-1"
STEPS = 10  # progress is told that often while trees are grown
# Compiled parts of scikit-learn that skops does not read unasked. They hold numbers, no code.
TRUSTED = [
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "numpy.dtype",
]


@dataclass(frozen=True, slots=True)
class Model:
    """An estimator, and what has to be known to use it: see `train`."""

    estimator: Any
    about: dict[str, Any]


def estimator(algorithm: Algorithm, labels: bool, size: int, seed: int, jobs: int) -> Pipeline:
    """An untrained estimator. labels: for classes rather than quantities. size: trees, rounds or neighbours."""
    made: Any
    match algorithm:
        case "forest":
            kind = RandomForestClassifier if labels else RandomForestRegressor
            made = kind(n_estimators=size, random_state=seed, n_jobs=jobs)
        case "boosting":
            kind = HistGradientBoostingClassifier if labels else HistGradientBoostingRegressor
            made = kind(max_iter=size, random_state=seed, early_stopping=False)
        case "neighbours":
            kind = KNeighborsClassifier if labels else KNeighborsRegressor
            made = kind(n_neighbors=size, n_jobs=jobs, algorithm="brute")  # the tables alone, no compiled tree
        case "linear":
            made = LogisticRegression(max_iter=2000, random_state=seed) if labels else Ridge(random_state=seed)
    first = [SimpleImputer(strategy="median", keep_empty_features=True)]
    return make_pipeline(*first, *([StandardScaler()] if algorithm in ("linear", "neighbours") else []), made)


def fit(pipeline: Pipeline, x: Array, y: Array, told: Callable[[float], None]) -> None:
    """Train it. Forests and boosting grow in steps; `told` hears the fraction after each, and may raise to end it."""
    *before, (_, last) = pipeline.steps
    for _, step in before:
        x = step.fit_transform(x)
    grows = next(
        (name for name in ("n_estimators", "max_iter") if hasattr(last, name) and hasattr(last, "warm_start")), None
    )
    if grows is None or isinstance(last, LogisticRegression):
        last.fit(x, y)
        told(1.0)
        return
    size = getattr(last, grows)
    last.set_params(warm_start=True)
    for step in range(1, STEPS + 1):
        grown = max(1, size * step // STEPS)
        if step == 1 or grown > getattr(last, grows):
            last.set_params(**{grows: grown}).fit(x, y)
        told(step / STEPS)
    last.set_params(warm_start=False)


def save(model: Model, path: Path) -> int:
    """Write the file, whole or not at all; its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid4().hex}.part")
    try:
        skops.io.dump({"format": FORMAT, "about": model.about, "estimator": model.estimator}, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path.stat().st_size


def load(path: Path) -> Model:
    """Read a model. ValueError for a file that `train` did not write, or that holds anything but estimators."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no model {path.name!r} in the session: make one with `train`")
    try:
        if strange := set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED):
            raise ValueError(f"{path.name!r} is refused: it holds {', '.join(sorted(strange)[:3])}")
        found = skops.io.load(path, trusted=TRUSTED)
    except (BadZipFile, KeyError, OSError, TypeError, AttributeError) as wrong:
        raise ValueError(f"{path.name!r} is no model of this module ({type(wrong).__name__})") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path.name!r} is no model of this module")
    return Model(found["estimator"], found["about"])
