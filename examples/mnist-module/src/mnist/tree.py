"""What both scripts read of the tree that the platform makes for a run."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np


def configuration(top: Path) -> dict[str, Any]:
    """How the script was called."""
    return dict(json.loads((top / "configuration.json").read_text()))


def images(folder: Path) -> tuple[list[int], Any, Any]:
    """Ids, pixels from 0 to 1 with a column of ones for the bias, and labels, of the one table in a folder."""
    (table,) = folder.glob("*.csv")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pixels = np.array([list(base64.b64decode(row["image"])) for row in rows], dtype=float) / 16
    labels = np.array([int(row["label"] or -1) for row in rows])
    return [int(row["image_id"]) for row in rows], np.hstack([pixels, np.ones((len(rows), 1))]), labels
