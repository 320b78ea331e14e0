"""Measurements of a cell, and their way through the network and the checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from hep2flow.cells import encode_png
from hep2flow.data.cell_measurements import measure_cell
from hep2flow.data.cell_set import CellSet
from hep2flow.errors import UserError
from hep2flow.evaluation.predict import predict_probabilities
from hep2flow.network.model import NetworkWithMeasurements, build_network
from hep2flow.recipe import Feature
from hep2flow.training.checkpoint import load_checkpoint
from tests.training.builders import CPU, cell_set, tiny, trained

ALL: tuple[Feature, ...] = ("radius", "area", "aspect", "intensity")
MEASURED = "model.aux_features=[radius,area,aspect,intensity]"


def measured(mask: npt.NDArray[np.bool_], image: npt.NDArray[np.uint8] | None = None) -> dict[str, float]:
    pixels = np.zeros((*mask.shape, 3), np.uint8) if image is None else image
    values = measure_cell(torch.from_numpy(pixels).permute(2, 0, 1), encode_png(mask), ALL, "c")
    return dict(zip(ALL, values.tolist(), strict=True))


def test_a_disc_has_its_radius_and_an_aspect_of_one() -> None:
    y, x = np.mgrid[:81, :81]
    found = measured((y - 40) ** 2 + (x - 40) ** 2 <= 30**2)
    assert found["radius"] == pytest.approx(30, abs=0.1)
    assert found["area"] == pytest.approx(math.pi * 30**2, rel=0.01)
    assert found["aspect"] == pytest.approx(1, abs=1e-3)


def test_a_bar_is_as_slim_as_it_is_whichever_way_it_lies() -> None:
    bar = np.zeros((50, 50), bool)
    bar[10:20, 5:45] = True
    for mask in (bar, bar.T):
        assert measured(mask)["area"] == 400
        assert measured(mask)["aspect"] == pytest.approx(10 / 40, rel=0.01)


@pytest.mark.parametrize(("pixels", "aspect"), [(1, 1.0), (5, 0.2)])
def test_a_single_pixel_and_a_line_are_measured_too(pixels: int, aspect: float) -> None:
    mask = np.zeros((9, 9), bool)
    mask[4, :pixels] = True
    assert measured(mask)["aspect"] == pytest.approx(aspect)


def test_intensity_is_of_the_brightest_channel_inside_the_mask() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 1] = 200
    image[0, 0, 1] = 100
    mask = np.zeros((4, 4), bool)
    mask[0, :2] = True
    assert measured(mask, image)["intensity"] == pytest.approx(150 / 255)


def test_a_cell_without_a_mask_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"aux_features: cell c7 has no mask.*data\.mask"):
        measure_cell(torch.zeros(3, 4, 4), None, ["area"], "c7")


def test_a_set_of_cells_with_one_that_has_no_mask_is_refused_by_that_cells_name() -> None:
    png = encode_png(np.zeros((9, 9), np.uint8))
    rows = [
        {"cell_id": name, "pattern": "a", "image": png, "mask": mask}
        for name, mask in (("c1", encode_png(np.ones((9, 9), bool))), ("c2", None))
    ]
    with pytest.raises(UserError, match="cell c2 has no mask"):
        CellSet(rows, ["a"], 8, tiny(MEASURED), training=False)
    CellSet(rows, ["a"], 8, tiny(), training=False)


def test_cells_are_measured_in_their_own_pixels_whatever_the_network_is_shown() -> None:
    values = cell_set(tiny("model.aux_features=[area,radius]"), 2, training=False).measurements
    assert values[:, 0].tolist() == [10 * 20, 11 * 22]
    torch.testing.assert_close(values[:, 1], (values[:, 0] / math.pi).sqrt())


def test_measurements_are_standardised_on_the_training_cells_and_lie_in_the_checkpoint(tmp_path: Path) -> None:
    recipe = tiny(MEASURED)
    _, _, checkpoint = trained(recipe, tmp_path)
    network, _ = load_checkpoint(checkpoint, CPU)
    assert isinstance(network, NetworkWithMeasurements)
    training = cell_set(recipe).measurements
    torch.testing.assert_close(network.head.feature_mean, training.mean(0))
    torch.testing.assert_close(network.head.feature_std, training.std(0, correction=0))


def test_measurements_reach_the_prediction(tmp_path: Path) -> None:
    recipe = tiny(MEASURED, "eval.tta=dihedral")
    _, _, checkpoint = trained(recipe, tmp_path)
    network, _ = load_checkpoint(checkpoint, CPU)
    cells = cell_set(recipe, 7, training=False)
    plain, views = predict_probabilities(network, cells, recipe, CPU)
    cells.measurements = cells.measurements.flip(0)
    other, _ = predict_probabilities(network, cells, recipe, CPU)
    assert not torch.allclose(plain, other)
    torch.testing.assert_close(views.sum(1), torch.ones(7))


def test_a_feature_that_never_varies_is_no_infinity() -> None:
    network = build_network(tiny(MEASURED).model, 2)
    assert isinstance(network, NetworkWithMeasurements)
    network.head.standardise(torch.ones(5, 4))
    assert torch.isfinite(network.eval()(torch.rand(2, 3, 64, 64), torch.ones(2, 4))).all()


@pytest.mark.parametrize("name", ["coat_lite_tiny", "coat_tiny", "test_convnext", "coatnet_pico_rw_224"])
def test_without_weight_on_the_measurements_the_network_is_timms_own(name: str) -> None:
    options = (f"model.network={name}", "model.layer_scale=null")
    torch.manual_seed(1)
    plain = build_network(tiny(*options).model, 6).eval()
    torch.manual_seed(1)
    joined = build_network(tiny(*options, "model.aux_features=[radius]").model, 6).eval()
    assert isinstance(joined, NetworkWithMeasurements)
    with torch.no_grad():
        joined.head.weight[:, -1] = 0
        images = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(joined(images, torch.rand(2, 1)), plain(images))


def test_a_saved_network_measures_and_predicts_as_the_trained_one_did(tmp_path: Path) -> None:
    recipe = tiny(MEASURED, "train.epochs=1")
    shown: list[torch.nn.Module] = []
    _, _, checkpoint = trained(recipe, tmp_path, shown.append)
    loaded, description = load_checkpoint(checkpoint, CPU)
    cells = cell_set(description.recipe, 7, training=False)
    assert torch.equal(
        predict_probabilities(shown[-1], cells, recipe, CPU)[0],
        predict_probabilities(loaded, cells, description.recipe, CPU)[0],
    )
