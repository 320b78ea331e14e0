"""The command that writes a run's network for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd

from hep2flow.data.cell_set import CellSet
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store
from tests.stages.conftest import RUN, Finished
from tests.test_cli import hep2flow


def test_the_file_alone_is_enough_to_get_the_evaluations_probabilities(
    finished: Finished, finished_store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "network.onnx"
    answer = hep2flow("export", "--run", RUN, "--onnx", path)
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"{path}: probabilities are torch's to ")
    told = {entry.key: entry.value for entry in onnx.load(path).metadata_props}

    key = finished_store.key(finished.evaluation)
    finished_store.get_file(f"{key}/predictions.parquet", tmp_path / "predictions.parquet")
    expected = pd.read_parquet(tmp_path / "predictions.parquet").set_index("cell_id")
    opened = open_dataset(finished_store, finished.masked)
    rows = list(opened.rows(keep=set(expected.index)))
    labels = json.loads(told["labels"])
    cells = CellSet(rows, labels, int(told["bits"]), finished.recipe, training=False)
    images = np.stack([image.numpy() for image in cells.images]).astype(np.float32)
    images = (images / 255 - np.float32(told["mean"])) / np.float32(told["std"])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"images": images})
    columns = [f"p_{label}" for label in labels]
    assert np.abs(found - expected.loc[cells.ids, columns].to_numpy()).max() <= 1e-4


def test_a_run_without_a_network_writes_nothing(finished: Finished, tmp_path: Path) -> None:
    answer = hep2flow("export", "--run", "nobody", "--onnx", tmp_path / "network.onnx")
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert list(tmp_path.iterdir()) == []
