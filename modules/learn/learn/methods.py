"""Models learnt from a session's tables: train, predict, evaluate. On scikit-learn."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

import numpy as np
import sklearn
from pydantic import BaseModel, Field
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
)
from sklearn.model_selection import cross_val_score, train_test_split
from threadpoolctl import threadpool_limits

from dataproc import Context, Module

from . import models, pictures, tables
from .models import Algorithm, Model

module = Module("learn", version="1.0.0", description="Trains, applies and evaluates models on a session's tables.")

File = Annotated[str, Field(min_length=1, max_length=1000, description="A path in the session directory.")]
Column = Annotated[str, Field(min_length=1, max_length=1000)]
Header = Annotated[bool, Field(description="Whether a CSV file begins with names; else columns are c0, c1, …")]
Jobs = Annotated[int, Field(ge=1, le=16, description="How many processor cores to use.")]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="The same seed gives the same model.")]
Size = Annotated[int, Field(ge=1, le=2000, description="Trees, rounds or neighbours; default by algorithm.")]
SIZES: dict[str, int] = {"forest": 100, "boosting": 50, "neighbours": 5, "linear": 1}
Scores = dict[str, float]


class Trained(BaseModel):
    """What was learnt. scores: on the held-out rows, which the model has not seen."""

    model: str = Field(description="The model's file in the session directory.")
    size: int = Field(description="Its size in bytes.")
    task: Literal["classification", "regression"]
    algorithm: str
    target: str
    features: list[str]
    classes: list[str]
    rows: dict[Literal["train", "held_out"], int]
    scores: Scores


class Predicted(BaseModel):
    """Where the predictions are, and the first of them."""

    into: str
    rows: int
    sample: list[str | float]


class Evaluated(BaseModel):
    """How good a model is, in numbers and pictures."""

    rows: int
    held_out: bool = Field(description="Whether these are rows of the training file that the model has not seen.")
    scores: Scores
    areas: Scores = Field(description="Areas under the ROC curves, by class; `all` over all classes.")
    pictures: list[str] = Field(description="PNG files in the session directory.")


class Validated(BaseModel):
    """Scores of a model trained anew for each part that was left out: accuracy of classes, R² of quantities."""

    scores: list[float]
    mean: float
    deviation: float


@module.method
def train(
    ctx: Context,
    file: File,
    target: Column,
    features: list[Column] | None = None,
    algorithm: Algorithm = "forest",
    header: Header = True,
    held_out: Annotated[float, Field(gt=0, lt=1, description="Share of rows kept for the scores.")] = 0.25,
    size: Size | None = None,
    seed: Seed = 0,
    jobs: Jobs = 2,
    into: File = "model.skops",
) -> Trained:
    """Learn a column of a table from the others, and keep the model in the session.

    Text and whole numbers are learnt as classes, other numbers as quantities. features: only these columns.
    """
    path = _model_place(ctx.session, into)
    plan, x, y, labels = _prepared(ctx, file, target, features, header)
    kept, tested = _split(len(y), y if labels else None, held_out, seed)
    pipeline = models.estimator(algorithm, labels, size or SIZES[algorithm], seed, jobs)
    with threadpool_limits(jobs):
        models.fit(pipeline, x[kept], y[kept], lambda done: _told(ctx, 0.05 + 0.85 * done, "training"))
    scores = _scores(labels, y[tested], pipeline.predict(x[tested]))
    classes = [str(label) for label in pipeline.classes_] if labels else []
    about = {
        "features": [[one.name, None if one.words is None else list(one.words)] for one in plan],
        "target": target, "labels": labels, "held_out": held_out, "seed": seed, "algorithm": algorithm,
        "file": tables.digest(ctx.session, file), "sklearn": sklearn.__version__,
    }  # fmt: skip
    written = models.save(Model(pipeline, about), path)
    ctx.progress(1.0, "trained")
    return Trained(
        model=into, size=written, task="classification" if labels else "regression", algorithm=algorithm,
        target=target, features=[one.name for one in plan], classes=classes,
        rows={"train": len(kept), "held_out": len(tested)}, scores=scores,
    )  # fmt: skip


@module.method
def predict(
    ctx: Context,
    model: File,
    file: File,
    header: Header = True,
    into: File = "predictions.csv",
    sample: Annotated[int, Field(ge=0, le=1000, description="How many predictions to answer.")] = 10,
) -> Predicted:
    """Apply a model to a table: one prediction a row, with the probability of each class."""
    if not into.lower().endswith(".csv"):
        raise ValueError(f"{into!r} must end in .csv")
    place = tables.place(ctx.session, into)
    known = models.load(tables.place(ctx.session, model))
    x = tables.matrix(tables.read(ctx.session, file, header), _plan(known))
    found = known.estimator.predict(x)
    columns: dict[str, Any] = {"prediction": found.tolist()}
    if known.about["labels"]:
        chances = known.estimator.predict_proba(x)
        columns |= {f"p_{label}": chances[:, n].round(6).tolist() for n, label in enumerate(known.estimator.classes_)}
    _write_csv(place, columns)
    first = [str(value) if known.about["labels"] else float(value) for value in found[:sample]]
    return Predicted(into=into, rows=len(found), sample=first)


@module.method
def evaluate(
    ctx: Context,
    model: File,
    file: File,
    header: Header = True,
    into: Annotated[str, Field(max_length=1000, description="Folder for the pictures.")] = "evaluation",
) -> Evaluated:
    """Compare a model's predictions with the truth, in scores and pictures.

    Of the very file that the model was trained on only the held-out rows are used. Classes: confusion matrix and ROC
    curves. Quantities: predictions against the truth.
    """
    folder = tables.place(ctx.session, into)
    known = models.load(tables.place(ctx.session, model))
    about, table = known.about, tables.read(ctx.session, file, header)
    truth, _ = tables.target(table, about["target"])
    x, seen = tables.matrix(table, _plan(known)), about["file"] == tables.digest(ctx.session, file)
    if seen:
        _, tested = _split(len(truth), truth if about["labels"] else None, about["held_out"], about["seed"])
        x, truth = x[tested], truth[tested]
    ctx.progress(0.3, "predicting")
    predicted = known.estimator.predict(x)
    scores = _scores(about["labels"], truth, predicted)
    ctx.progress(0.6, "drawing")
    drawn, areas = _draw(known, x, truth, predicted, scores)
    for name, figure in drawn.items():
        pictures.save(figure, folder / name)
    ctx.progress(1.0, "evaluated")
    files = [(Path(into) / name).as_posix() for name in drawn]
    return Evaluated(rows=len(truth), held_out=seen, scores=scores, areas=areas, pictures=files)


@module.method("cross-validate", reads_only=True)
def cross_validate(
    ctx: Context,
    file: File,
    target: Column,
    features: list[Column] | None = None,
    algorithm: Algorithm = "forest",
    header: Header = True,
    folds: Annotated[int, Field(ge=2, le=20)] = 5,
    size: Size | None = None,
    seed: Seed = 0,
    jobs: Jobs = 2,
) -> Validated:
    """Train and score a model once for each part of a table, each time without that part; parts run at once."""
    _, x, y, labels = _prepared(ctx, file, target, features, header)
    pipeline = models.estimator(algorithm, labels, size or SIZES[algorithm], seed, jobs=1)
    ctx.progress(0.1, f"{folds} parts")
    scores = cross_val_score(pipeline, x, y, cv=folds, n_jobs=jobs)
    return Validated(scores=scores.tolist(), mean=float(scores.mean()), deviation=float(scores.std()))


def _prepared(
    ctx: Context, file: str, target: str, features: list[str] | None, header: bool
) -> tuple[Any, Any, Any, bool]:
    """Features, their matrix, the values to learn, and whether those are classes."""
    table = tables.read(ctx.session, file, header)
    y, labels = tables.target(table, target)
    names = features if features is not None else [name for name in table.column_names if name != target]
    if not names or target in names:
        raise ValueError(f"`features` must name columns other than {target!r}")
    if len(y) < 10 or (labels and len(np.unique(y)) < 2):
        raise ValueError("there is too little to learn from: at least 10 rows, and two different classes, are needed")
    plan = tables.features(table, names)
    _told(ctx, 0.05, "read")
    return plan, tables.matrix(table, plan), y, labels


def _split(rows: int, classes: Any, held_out: float, seed: int) -> tuple[Any, Any]:
    """Row numbers to train on and to test on; of each class alike, where each has enough."""
    enough = classes is not None and np.unique(classes, return_counts=True)[1].min() >= 2
    places = np.arange(rows)
    try:
        kept, tested = train_test_split(
            places, test_size=held_out, random_state=seed, stratify=classes if enough else None
        )
    except ValueError:  # fewer rows held out than there are classes
        kept, tested = train_test_split(places, test_size=held_out, random_state=seed)
    return kept, tested


def _scores(labels: bool, truth: Any, predicted: Any) -> Scores:
    if labels:
        average = float(f1_score(truth, predicted, average="macro", zero_division=0))
        return {"accuracy": float(accuracy_score(truth, predicted)), "f1": average}
    return {
        "r2": float(r2_score(truth, predicted)),
        "mean_absolute_error": float(mean_absolute_error(truth, predicted)),
        "root_mean_squared_error": float(mean_squared_error(truth, predicted) ** 0.5),
    }


def _draw(known: Model, x: Any, truth: Any, predicted: Any, scores: Scores) -> tuple[dict[str, Any], Scores]:
    about = known.about
    if not about["labels"]:
        title = f"{about['target']}: R² {scores['r2']:.3f}"
        return {"predictions.png": pictures.against(truth, predicted, about["target"], title)}, {}
    labels = known.estimator.classes_
    every = np.unique(np.concatenate([labels, truth]))
    classes, right = [str(label) for label in labels], f"{scores['accuracy']:.1%} right"
    matrix = confusion_matrix(truth, predicted, labels=every)
    picture = pictures.confusion(matrix, [str(label) for label in every], f"{about['target']}: {right}")
    chances = known.estimator.predict_proba(x)
    curves, areas = pictures.roc(np.asarray([str(one) for one in truth]), chances, classes, f"{about['target']}: ROC")
    return {"confusion.png": picture, "roc.png": curves}, areas


def _plan(known: Model) -> list[tables.Feature]:
    return [tables.Feature(name, None if words is None else tuple(words)) for name, words in known.about["features"]]


def _model_place(session: Path, into: str) -> Path:
    if not into.lower().endswith(".skops"):
        raise ValueError(f"{into!r} must end in .skops")
    return tables.place(session, into)


def _told(ctx: Context, fraction: float, message: str) -> None:
    """Progress, and the one place where a long training sees that nobody wants it any more."""
    if ctx.cancelled:
        raise InterruptedError("the run was cancelled")
    ctx.progress(fraction, message)


def _write_csv(path: Path, columns: dict[str, list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid4().hex}.part")
    try:
        with part.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
