"""The shipped module `learn`, in its sandbox, on real handwritten digits and real weather."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from dataproc.testing import RunFailed, RunMethod

ROOT = Path(__file__).parents[2]
DATA = ROOT / "examples" / "data"
DIGITS = {"file": "digits.csv.gz", "header": False}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def module_folder() -> Path:
    """The module under test."""
    return ROOT / "modules" / "learn"


@pytest.fixture
def learn(run_method: RunMethod) -> RunMethod:
    """Methods of learn, in a session with both tables in it."""
    shutil.copy(DATA / "digits.csv.gz", run_method.session)
    shutil.copy(DATA / "seattle-weather.csv", run_method.session / "weather.csv")
    return run_method


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    head = picture.read_bytes()[:24]
    assert head[:8] == PNG
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


def test_digits_are_learnt_predicted_and_evaluated(learn: RunMethod) -> None:
    """Nine in ten at the least are right on rows that the model has not seen, and the pictures are there."""
    trained = learn("train", target="c64", size=40, **DIGITS).result
    assert (trained["task"], trained["rows"]) == ("classification", {"train": 1347, "held_out": 450})
    assert trained["scores"]["accuracy"] > 0.93
    assert trained["classes"] == [str(digit) for digit in range(10)]
    judged = learn("evaluate", model="model.skops", **DIGITS)
    assert (judged.result["rows"], judged.result["held_out"]) == (450, True)
    assert judged.result["scores"] == trained["scores"]
    assert judged.result["areas"]["all"] > 0.99
    assert judged.result["pictures"] == ["evaluation/confusion.png", "evaluation/roc.png"]
    assert all(min(size_of(judged.files[name])) > 600 for name in judged.result["pictures"])
    told = learn("predict", model="model.skops", sample=2, **DIGITS)
    assert told.result == {"into": "predictions.csv", "rows": 1797, "sample": ["0", "1"]}
    with told.files["predictions.csv"].open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 1797
    assert float(rows[0]["p_0"]) > 0.5


@pytest.mark.parametrize("algorithm", ["forest", "boosting", "linear", "neighbours"])
def test_every_algorithm_learns_classes_and_can_be_read_again(learn: RunMethod, algorithm: str) -> None:
    """Text and dates among the features, classes that are words; the same seed gives the same scores."""
    asked = {"file": "weather.csv", "target": "weather", "algorithm": algorithm, "size": 12, "jobs": 1}
    first = learn("train", **asked).result
    assert first["scores"]["accuracy"] > 0.6
    assert learn("train", **asked, into="again.skops").result["scores"] == first["scores"]
    judged = learn("evaluate", model="again.skops", file="weather.csv").result
    assert judged["scores"] == first["scores"]


def test_quantities_are_learnt_too(learn: RunMethod) -> None:
    """A column of numbers with fractions is a regression, and its picture is another."""
    trained = learn("train", file="weather.csv", target="temp_max", size=20).result
    assert trained["task"] == "regression"
    assert trained["scores"]["r2"] > 0.7
    judged = learn("evaluate", model="model.skops", file="weather.csv")
    assert judged.result["pictures"] == ["evaluation/predictions.png"]
    assert size_of(judged.files["evaluation/predictions.png"])[0] > 600


def test_parts_are_trained_at_once_inside_the_walls(learn: RunMethod) -> None:
    """Two processes of joblib work, and a forest on two threads gives what it gives on one."""
    told = learn("cross-validate", target="c64", folds=3, size=10, jobs=2, **DIGITS).result
    assert len(told["scores"]) == 3
    assert told["mean"] > 0.8
    one = learn("train", target="c64", size=10, jobs=1, **DIGITS).result
    two = learn("train", target="c64", size=10, jobs=2, **DIGITS).result
    assert one["scores"] == two["scores"]


def test_a_model_of_other_columns_is_told_what_is_missing(learn: RunMethod) -> None:
    """The model names the column that the table does not have."""
    learn("train", file="weather.csv", target="weather", features=["wind"], size=5)
    with pytest.raises(RunFailed, match="there is no column 'wind'"):
        learn("predict", model="model.skops", **DIGITS)


def test_a_file_that_is_no_model_runs_no_code(learn: RunMethod) -> None:
    """A pickle, a table, and an archive of other types are refused before anything of them is made."""
    import pickle
    import subprocess

    import skops.io

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, ("/session/owned", "w")

    (learn.session / "pickle.skops").write_bytes(pickle.dumps(Evil()))
    skops.io.dump({"format": "dataproc-learn-1", "estimator": subprocess.Popen}, learn.session / "types.skops")
    for name in ("pickle.skops", "weather.csv", "types.skops"):
        with pytest.raises(RunFailed, match=r"is no model of this module|is refused: it holds"):
            learn("predict", model=name, **DIGITS)
    assert not (learn.session / "owned").exists()


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"file": "nowhere.csv", "target": "x"}, "there is no file 'nowhere.csv'"),
        ({"file": "weather.csv", "target": "wether"}, "there is no column 'wether'; there is: date"),
        ({"file": "weather.csv", "target": "wind", "features": ["wind"]}, "columns other than 'wind'"),
        ({"file": "../weather.csv", "target": "wind"}, "must be a path inside the session directory"),
        ({"file": "weather.csv", "target": "wind", "into": "model.pkl"}, "must end in .skops"),
    ],
)
def test_mistakes_are_told_kindly(learn: RunMethod, params: dict[str, object], said: str) -> None:
    """The message says what there is instead."""
    with pytest.raises(RunFailed, match=said):
        learn("train", **params)
