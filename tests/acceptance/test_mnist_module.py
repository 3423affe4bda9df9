"""The example module on real digits, called over HTTP as the xData documentation shows."""

from __future__ import annotations

import base64
import csv
import gzip
import shutil
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import DEADLINE, REPOSITORY, Shell, call, headers

COLUMNS = [
    {"column_name": "image_id", "data_type": "integer"},
    {"column_name": "label", "data_type": "integer"},
    {"column_name": "image", "data_type": "text"},
]
MODULE = "/api/v2/module/jsonrpc"
TRAIN = {
    "module": "mnist-module",
    "method": "train",
    "input": {"train_dataset": {"data_ddc": "ddc:mnist_train"}},
    "output": {"trained_model": {"model_store_ddc": "ddc:mnist_models"}},
}
PREDICT = {
    "module": "mnist-module",
    "method": "predict",
    "input": {
        "predict_dataset": {"data_ddc": "ddc:mnist_test"},
        "trained_model": {"model_store_ddc": "ddc:mnist_models", "query": {"=": ["model_kind", "mnist_softmax"]}},
    },
    "output": {"prediction_result": {"data_ddc": "ddc:mnist_result"}},
}


def digits() -> list[list[Any]]:
    """The records of the real digits: id, label, pixels in base64."""
    with gzip.open(REPOSITORY / "examples" / "data" / "digits.csv.gz", "rt", newline="") as file:
        rows = [[round(float(cell)) for cell in row] for row in csv.reader(file)]
    return [[n, row[64], base64.b64encode(bytes(row[:64])).decode()] for n, row in enumerate(rows)]


def answer(client: httpx.Client, path: str, rpc_method: str, **params: Any) -> Any:
    """The result of a call."""
    told = client.post(path, json=call(rpc_method, **params)).json()
    assert "result" in told, told
    return told["result"]


@pytest.mark.timeout(180)
def test_digits_are_learnt_and_read(shell: Shell) -> None:
    """Train on 1,500 digits, read the other 297 with the model from the store: more than 85 of 100 are right."""
    modules = shell.folder / "modules"
    shutil.copytree(REPOSITORY / "examples" / "mnist-module", modules / "mnist-module")
    records, dataset = digits(), "/api/v2/dataset/jsonrpc"
    shell.env["DATAPROC_MODULES_DIR"] = str(modules)
    key = shell.key()
    with shell.serve() as served, httpx.Client(base_url=served.url, headers=headers(key), timeout=DEADLINE) as client:
        for name, some in (("mnist_train", records[:1500]), ("mnist_test", records[1500:])):
            answer(client, dataset, "dataset.create", dataset_name=name, columns=COLUMNS, key_columns=["image_id"])
            assert answer(client, dataset, "dataset.record.put", dataset_name=name, records=some) == len(some)
        assert answer(client, MODULE, "module.exec", **TRAIN) is True
        models = answer(
            client, "/api/v2/model_store/jsonrpc", "model_store.model.get_info", model_store_ddc="ddc:mnist_models"
        )
        assert [(each["model_kind"], each["model_state"]) for each in models] == [("mnist_softmax", 10)]
        assert answer(client, "/api/v1/dataproc/jsonrpc", "dataproc.exec", **PREDICT) is True
        read = answer(client, dataset, "dataset.record.get", citation_label="ddc:mnist_result")
        labels = {record[0]: record[1] for record in records[1500:]}
        assert {row["image_id"] for row in read} == set(labels)
        assert sum(labels[row["image_id"]] == row["label"] for row in read) > 0.85 * len(labels)
        described = answer(client, "/api/v1/dataproc/jsonrpc", "dataproc.describe_module", module="mnist_module")
        assert described["name"] == "mnist-module"
        assert [each["input"] for each in described["methods"]] == [
            ["train_dataset"],
            ["predict_dataset", "trained_model"],
        ]
