"""Read the images with a trained model, and leave what they show as a table."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from tree import images

top = Path(sys.argv[1])
(model,) = (top / "input" / "trained_model").glob("*/model")
weights = np.load(model)
ids, pixels, _ = images(top / "input" / "predict_dataset")
found = (pixels @ weights).argmax(axis=1)

output = top / "output" / "prediction_result"
output.mkdir(parents=True)
with (output / "prediction.csv").open("w", newline="", encoding="utf-8") as file:
    table = csv.writer(file)
    table.writerow(["image_id", "label"])
    table.writerows(zip(ids, found.tolist(), strict=True))
print(f"{len(ids)} images read")
