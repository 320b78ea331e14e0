"""A frozen network on another data set: class maps, figures worked by hand, cells it was trained on, and what is refused."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hep2flow.cells import Cell
from hep2flow.errors import UserError
from hep2flow.stages.evaluate_external import evaluate_external, map_classes
from hep2flow.stages.ingest import ingest
from hep2flow.stages.mask import mask
from hep2flow.stages.predict import predict
from hep2flow.stages.unlabelled_images import open_images
from hep2flow.store.datasets import open_dataset
from hep2flow.store.delete import plan_deletion
from hep2flow.store.pull import pull
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split
from tests.stages.cells_in_store import cells_of, listing
from tests.stages.conftest import RUN, Finished
from tests.test_cli import hep2flow

# What the other laboratory calls them, and what the network does.
OTHER = {"homogeneous": "Diffuse", "nucleolar": "nucleolar", "fine_speckled": "Speckled", "coarse_speckled": "Speckled"}
MAPS = ["Diffuse=homogeneous", "speckled=coarse_speckled", "golgi="]


def written(folder: Path, cells: dict[str, Cell], masks: bool = True) -> Path:
    """Cells as another laboratory's folder of classes; those it knows nothing like are its golgi."""
    for cell_id, cell in cells.items():
        place = folder / OTHER.get(cell.pattern, "Golgi")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{cell_id}.png").write_bytes(cell.image)
        if masks:
            assert cell.mask is not None
            (place / f"{cell_id}_mask.png").write_bytes(cell.mask)
    return folder


def some(store: Store, finished: Finished, subset: str, count: int) -> dict[str, Cell]:
    """Some cells of each pattern of a subset, as they came."""
    cells, found = cells_of(store, finished.dataset), {}
    taken: Counter[str] = Counter()
    for cell_id in read_split(store, finished.split).ids(subset):  # type: ignore[arg-type]
        if taken[cells[cell_id].pattern] < count:
            taken[cells[cell_id].pattern] += 1
            found[cell_id] = cells[cell_id]
    return found


def metrics_of(store: Store, uri: str) -> dict:  # type: ignore[type-arg]
    return json.loads(store.get_bytes(f"{store.key(uri)}/metrics.json"))


def test_the_figures_are_those_worked_by_hand(finished: Finished, finished_store: Store, tmp_path: Path) -> None:
    cells = some(finished_store, finished, "test", 6)
    folder = written(tmp_path / "other", cells)
    dataset = ingest(finished_store, str(folder)).uri
    options = [text for pattern in MAPS for text in ("--map", pattern)]
    answer = hep2flow("evaluate", "--run", RUN, "--dataset", dataset, *options, "--json")
    result = answer.json()
    metrics = metrics_of(finished_store, result["uri"])

    names = {"Diffuse": "homogeneous", "Speckled": "coarse_speckled", "nucleolar": "nucleolar"}
    with open_images([str(folder)], "folder") as source:
        guessed = predict(finished_store, RUN, source, log=lambda text: None)
    guessed["truth"] = [names.get(Path(file).parent.name) for file in guessed["file"]]
    left_out = guessed["truth"].isna()
    kept = guessed[~left_out]
    assert left_out.sum() == sum(OTHER.get(cell.pattern) is None for cell in cells.values()) > 0
    assert metrics["n"] == len(kept)
    assert metrics["aca"] == pytest.approx((kept["truth"] == kept["predicted"]).mean())
    expected = pd.crosstab(kept["truth"], kept["predicted"])
    labels = metrics["labels"]
    assert metrics["confusion"] == expected.reindex(index=labels, columns=labels, fill_value=0).to_numpy().tolist()

    assert (metrics["subset"], metrics["protocol"], metrics["selected_on_test"]) == ("external", "external", False)
    assert metrics["class_map"] == {
        "diffuse": "homogeneous", "golgi": None, "nucleolar": "nucleolar", "speckled": "coarse_speckled"
    }  # fmt: skip
    assert metrics["dropped"] == {"golgi": left_out.sum()}
    assert metrics["training_dataset"] == finished.masked.rsplit("/", 1)[1]
    assert (metrics["trained_on"], metrics["selected_on"]) == (0, 0)
    assert f"cells left out: golgi {left_out.sum()}" in answer.err

    again = hep2flow("evaluate", "--run", RUN, "--dataset", dataset, *options, "--json").json()
    assert (again["cached"], again["uri"], again["summary"]) == (True, result["uri"], result["summary"])


def test_the_data_set_is_masked_as_the_networks_own_cells_were(
    finished: Finished, finished_store: Store, tmp_path: Path
) -> None:
    folder = written(tmp_path / "bare", some(finished_store, finished, "test", 2), masks=False)
    dataset = ingest(finished_store, str(folder)).uri
    told: list[str] = []
    result = evaluate_external(finished_store, RUN, None, dataset, MAPS, told.append, None)
    derived = mask(finished_store, dataset, "apply")
    assert any(line.startswith(f"{derived.summary['derived']} masks derived from the images") for line in told)
    manifest = finished_store.get_json(f"{finished_store.key(result.uri)}/manifest.json")
    assert manifest["dataset"] == derived.uri
    already = evaluate_external(finished_store, RUN, None, derived.uri, MAPS, told.append, None)
    assert already.summary == result.summary

    cropped = mask(finished_store, dataset, "crop").uri
    assert evaluate_external(finished_store, RUN, None, cropped, MAPS, told.append, None).uri == result.uri


def test_cells_that_the_network_was_trained_on_are_told(
    finished: Finished, finished_store: Store, tmp_path: Path
) -> None:
    trained, chosen = (some(finished_store, finished, subset, 2) for subset in ("train", "val"))
    known = [cell for cell in trained.values() if cell.pattern in OTHER]
    folder = written(tmp_path / "same", {**trained, **chosen, **some(finished_store, finished, "test", 2)})
    for mask_file in folder.rglob("*_mask.png"):  # the same cells with other masks are the same cells
        mask_file.unlink()
    told: list[str] = []
    dataset = ingest(finished_store, str(folder)).uri
    result = evaluate_external(finished_store, RUN, None, dataset, MAPS, told.append, None)
    assert result.summary["trained_on"] == len(known) > 0
    assert f"{len(known)} of these {result.summary['n']} cells are cells that convnext-b was trained on" in "\n".join(
        told
    )
    metrics = metrics_of(finished_store, result.uri)
    assert metrics["selected_on"] == sum(cell.pattern in OTHER for cell in chosen.values()) > 0
    assert metrics["selected_on_test"] is True


def test_the_run_records_it_pulls_it_and_takes_it_along(
    finished: Finished, finished_store: Store, tmp_path: Path
) -> None:
    dataset = ingest(finished_store, str(written(tmp_path / "lab", some(finished_store, finished, "test", 3)))).uri
    result = evaluate_external(finished_store, RUN, None, dataset, MAPS, lambda text: None, None)
    name = f"convnext-b-on-lab-{result.key[:8]}"
    assert show_run(finished_store, RUN).stage_status[f"external-{name}"] == "succeeded"
    assert f"external-{name}" in hep2flow("runs", "show", RUN).out
    pull(finished_store, RUN, tmp_path / "pulled", "metrics")
    metrics = json.loads((tmp_path / "pulled" / "external" / name / "metrics.json").read_text())
    predictions = pd.read_parquet(
        io.BytesIO((tmp_path / "pulled" / "external" / name / "predictions.parquet").read_bytes())
    )
    assert np.mean(predictions["truth"] == predictions["predicted"]) == pytest.approx(metrics["aca"])
    assert {part.key for part in plan_deletion(finished_store, RUN).parts} >= {
        finished_store.key(result.uri),
        finished_store.key(finished.training),
        finished_store.key(finished.evaluation),
    }


LABELS = ["homogeneous", "nucleolar"]


def test_equal_names_need_no_map_and_case_does_not_matter() -> None:
    assert map_classes(["golgi", "nucleolar", "smooth"], LABELS, ["SMOOTH = Homogeneous", "golgi="]) == {
        "golgi": None, "nucleolar": "nucleolar", "smooth": "homogeneous"
    }  # fmt: skip
    assert map_classes(["nucleolar"], LABELS, ["nucleolar=homogeneous"]) == {"nucleolar": "homogeneous"}


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (
            [],
            "patterns that the network does not know: golgi, smooth; for each add --map golgi=OURS, OURS one of homogeneous",
        ),
        (["golgi="], "does not know: smooth; for each add --map smooth=OURS"),
        (["golgi"], "--map golgi: write OTHER=OURS or OTHER=, OTHER is one of golgi, nucleolar, smooth"),
        (["rough=nucleolar"], "--map rough=nucleolar: write OTHER=OURS"),
        (
            ["golgi=speckled"],
            "--map golgi=speckled: the network does not know speckled; it knows homogeneous, nucleolar",
        ),
        (["golgi=", "Golgi=nucleolar"], "Golgi is mapped twice"),
        (["golgi=", "smooth=", "nucleolar="], "leaves out every pattern"),
    ],
)
def test_maps_that_say_nothing(maps: list[str], words: str) -> None:
    with pytest.raises(UserError) as told:
        map_classes(["golgi", "nucleolar", "smooth"], LABELS, maps)
    assert words in str(told.value)


FORMS = "give --recipe, --training, --dataset and --split, or --run and --dataset"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", RUN, "--split", "s3://x/y"], f"evaluate: --split and --run do not go together; {FORMS}"),
        (["--run", RUN, "--set", "eval.tta=none"], "--set and --run do not go together"),
        (["--recipe", "convnext-b", "--map", "a=b"], "--recipe and --map do not go together"),
        (["--recipe", "convnext-b"], "evaluate: --training, --split missing; or, for another data set, give --run"),
        (["--model", "x"], "evaluate: --recipe, --training, --split missing"),
        (["--run", "nobody"], "there is no such run"),
        (["--run", RUN, "--model", "nobody"], "--model nobody: run first has no finished training of that name"),
        (["--run", RUN], "there is no complete data set"),
    ],
)
def test_bad_input(finished: Finished, finished_store: Store, arguments: list[str], words: str) -> None:
    before = listing(finished_store)
    answer = hep2flow("evaluate", "--dataset", finished_store.uri("datasets/none/0"), *arguments)
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1), answer.err
    assert words in answer.err
    assert listing(finished_store) == before


def test_the_first_form_still_works(finished: Finished) -> None:
    changes = [
        "--set",
        "model.network=test_convnext",
        "--set",
        "model.layer_scale=null",
        "--set",
        "train.max_updates=30",
    ]
    where = ["--training", finished.training, "--dataset", finished.masked, "--split", finished.split]
    recipe = ["--recipe", "convnext-b", "--profile", "laptop", "--set", "eval.tta=none"]
    result = hep2flow("evaluate", *recipe, *changes, *where, "--json").json()
    assert (result["uri"], result["cached"]) == (finished.evaluation, True)


def test_a_data_set_of_one_pattern_has_figures_too(finished: Finished, finished_store: Store, tmp_path: Path) -> None:
    cells = {i: cell for i, cell in some(finished_store, finished, "test", 4).items() if cell.pattern in OTHER}
    dataset = ingest(finished_store, str(written(tmp_path / "one", cells))).uri
    maps = ["diffuse=", "speckled="]
    result = evaluate_external(finished_store, RUN, None, dataset, maps, lambda text: None, None)
    assert result.summary["n"] == sum(cell.pattern == "nucleolar" for cell in cells.values())
    assert open_dataset(finished_store, dataset).labels == ["diffuse", "nucleolar", "speckled"]
