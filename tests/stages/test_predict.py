"""Predicting unlabelled images: as an evaluation would, from the checkpoint alone, and what is refused."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hep2flow.recipe import parse_recipe
from hep2flow.stages.evaluate import evaluate
from hep2flow.stages.predict import predict, specimen_votes
from hep2flow.stages.unlabelled_images import open_images
from hep2flow.store import layout
from hep2flow.store.runs import StageRecord, show_run
from hep2flow.store.s3 import Store
from tests.sources import builders
from tests.stages.cells_in_store import cells_of, listing
from tests.stages.conftest import RUN, Finished
from tests.test_cli import Answer, hep2flow

CLOSE = 1e-6


def table(answer: Answer) -> pd.DataFrame:
    """Standard output, which is CSV and nothing else."""
    assert answer.code == 0, answer.err
    return pd.read_csv(io.StringIO(answer.out))


def evaluated(store: Store, uri: str) -> pd.DataFrame:
    """An evaluation's predictions by cell_id."""
    data = store.get_bytes(f"{store.key(uri)}/predictions.parquet")
    return pd.read_parquet(io.BytesIO(data)).set_index("cell_id")


def copied(finished: Finished, folder: Path, count: int, masks: bool = True) -> Path:
    """The first test cells in a folder of their own, with their masks or without."""
    folder.mkdir(parents=True)
    images = [path for path in sorted((finished.cells / "test").glob("*.png")) if not path.stem.endswith("_mask")]
    for image in images[:count]:
        shutil.copy(image, folder)
        if masks:
            shutil.copy(image.with_name(f"{image.stem}_mask.png"), folder)
    return folder


def difference(predicted: pd.DataFrame, expected: pd.DataFrame) -> float:
    """Largest difference of a probability; the cells of ``predicted`` by the numbers in their files' names."""
    columns = [name for name in expected.columns if name.startswith("p_")]
    ids = [f"test-{Path(file).stem}" for file in predicted["file"]]
    assert list(predicted["predicted"]) == list(expected.loc[ids, "predicted"])
    return float(np.abs(predicted[columns].to_numpy() - expected.loc[ids, columns].to_numpy()).max())


@pytest.mark.parametrize("tta", [None, "dihedral"])
def test_a_hundred_unseen_images_get_the_probabilities_of_the_evaluation(
    finished: Finished, finished_store: Store, tmp_path: Path, tta: str | None
) -> None:
    expected = evaluated(finished_store, finished.evaluation)
    if tta is not None:
        recipe = parse_recipe(finished.recipe.model_dump(mode="json"), "x", [f"eval.tta={tta}"])
        again = evaluate(finished_store, recipe, finished.training, finished.masked, finished.split)
        plain, expected = expected, evaluated(finished_store, again.uri)
        assert np.abs(plain.filter(like="p_").to_numpy() - expected.filter(like="p_").to_numpy()).max() > 100 * CLOSE
    folder = copied(finished, tmp_path / "unseen", 100)
    answer = hep2flow("predict", "--run", RUN, folder, *(["--tta", tta] if tta else []))
    predicted = table(answer)
    assert len(predicted) == 100
    assert list(predicted.columns[:3]) == ["file", "predicted", "confidence"]
    assert list(predicted["file"]) == sorted(str(folder / Path(file).name) for file in predicted["file"])
    assert difference(predicted, expected) <= CLOSE
    assert np.allclose(predicted["confidence"], predicted.filter(like="p_").max(axis=1))
    assert answer.err.splitlines().count("Research use only, not for clinical use.") == 1


def test_single_files_find_their_masks_and_are_named_as_given(
    finished: Finished, finished_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(finished, tmp_path / "some", 3)
    monkeypatch.chdir(folder)
    names = sorted(path.name for path in folder.iterdir())  # as *.png names them, masks and all
    predicted = table(hep2flow("predict", "--run", RUN, *names))
    assert list(predicted["file"]) == [name for name in names if "_mask" not in name]
    assert difference(predicted, evaluated(finished_store, finished.evaluation)) <= CLOSE


@pytest.mark.parametrize("named", ["{}.png", "{}_mask.png"])
def test_masks_may_lie_in_a_folder_of_their_own(
    finished: Finished, finished_store: Store, tmp_path: Path, named: str
) -> None:
    cells = copied(finished, tmp_path / "cells", 5)
    masks = cells / "masks"
    masks.mkdir()
    for mask in cells.glob("*_mask.png"):
        mask.rename(masks / named.format(mask.stem.removesuffix("_mask")))
    predicted = table(hep2flow("predict", "--run", RUN, cells, "--mask", masks))
    assert len(predicted) == 5
    assert difference(predicted, evaluated(finished_store, finished.evaluation)) <= CLOSE
    first = sorted(cells.glob("*.png"))[0]
    single = table(hep2flow("predict", "--run", RUN, first, "--mask", masks / named.format(first.stem)))
    assert difference(single, evaluated(finished_store, finished.evaluation)) <= CLOSE


def test_masks_are_derived_where_there_are_none(finished: Finished, tmp_path: Path) -> None:
    answer = hep2flow("predict", "--run", RUN, copied(finished, tmp_path / "bare", 4, masks=False))
    assert len(table(answer)) == 4
    assert "4 masks derived from the images (Otsu, largest component)" in answer.err


def test_a_data_set_is_recognised_and_its_specimens_vote_as_in_the_evaluation(
    finished: Finished, finished_store: Store
) -> None:
    metrics = finished_store.get_json(f"{finished_store.key(finished.evaluation)}/metrics.json")
    voted = table(hep2flow("predict", "--run", RUN, finished.cells, "--specimen")).set_index("specimen")
    assert len(voted) == 12
    test = {entry["specimen_id"]: entry for entry in metrics["by_specimen"]}
    for name, entry in test.items():
        row = voted.loc[str(finished.cells / name)]
        assert (row["predicted"], row["cells"]) == (entry["vote"], entry["n"])
    cells = cells_of(finished_store, finished.dataset)
    predictions = evaluated(finished_store, finished.evaluation)
    name = next(iter(test))
    own = predictions.loc[[cell_id for cell_id in predictions.index if cells[cell_id].specimen_id == name]]
    row = voted.loc[str(finished.cells / name)]
    assert row["share"] == pytest.approx((own["predicted"] == row["predicted"]).mean())
    assert row["confidence"] == pytest.approx(own[f"p_{row['predicted']}"].mean(), abs=CLOSE)


def test_a_vote_is_counted_by_hand() -> None:
    cells = pd.DataFrame(
        [
            ("1/a.png", "1", "x", 0.9, 0.9, 0.1),
            ("1/b.png", "1", "y", 0.6, 0.4, 0.6),
            ("1/c.png", "1", "y", 0.7, 0.3, 0.7),
            ("2/a.png", "2", "y", 0.6, 0.4, 0.6),
            ("2/b.png", "2", "x", 0.9, 0.9, 0.1),  # a tie: x is the likelier
        ],
        columns=["file", "specimen", "predicted", "confidence", "p_x", "p_y"],
    )
    first, second = specimen_votes(cells).to_dict("records")
    assert first == pytest.approx(
        {
            "specimen": "1",
            "predicted": "y",
            "share": 2 / 3,
            "cells": 3,
            "confidence": 1.4 / 3,
            "p_x": 1.6 / 3,
            "p_y": 1.4 / 3,
        }
    )
    assert second == pytest.approx(
        {"specimen": "2", "predicted": "x", "share": 0.5, "cells": 2, "confidence": 0.65, "p_x": 0.65, "p_y": 0.35}
    )


@pytest.mark.parametrize("specimen", [[], ["--specimen"]])
def test_below_a_confidence_it_abstains(finished: Finished, tmp_path: Path, specimen: list[str]) -> None:
    for count in (2, 5, 9):
        copied(finished, tmp_path / "cells" / str(count), count)
    plain = table(hep2flow("predict", "--run", RUN, tmp_path / "cells", *specimen))
    limit = float(np.mean(sorted(set(plain["confidence"]))[:2]))
    answered = table(hep2flow("predict", "--run", RUN, tmp_path / "cells", *specimen, "--abstain-below", str(limit)))
    low = plain["confidence"] < limit
    assert 0 < low.sum() < len(plain)
    assert (answered.loc[low, "predicted"] == "abstain").all()
    assert list(answered.loc[~low, "predicted"]) == list(plain.loc[~low, "predicted"])
    assert answered.drop(columns="predicted").equals(plain.drop(columns="predicted"))
    assert (
        table(hep2flow("predict", "--run", RUN, tmp_path / "cells", "--abstain-below", "1"))["predicted"]
        .eq("abstain")
        .all()
    )


def test_of_several_models_the_best_is_taken_and_named(
    finished: Finished, finished_store: Store, tmp_path: Path
) -> None:
    folder = copied(finished, tmp_path / "cells", 2)
    view = show_run(finished_store, RUN)
    added = []
    for record in view.stages:
        if record.stage in ("train", "evaluate"):
            key = layout.stage_record(RUN, record.stage, "worse")
            other = StageRecord.model_validate({**record.model_dump(mode="json"), "model": "worse"})
            if record.stage == "evaluate":
                other.result["summary"]["aca"] = -1.0
            finished_store.put_json(key, other.model_dump(mode="json"))
            added.append(key)
    before = finished_store.get_json(layout.run_record(RUN))
    recipes = {**before["recipes"], "worse": before["recipes"]["convnext-b"]}
    finished_store.put_json(layout.run_record(RUN), {**before, "recipes": recipes})
    try:
        answer = hep2flow("predict", "--run", RUN, folder)
        assert answer.err.startswith("--model convnext-b, the best of convnext-b, worse by ACA: ")
        assert "--model" not in hep2flow("predict", "--run", RUN, folder, "--model", "worse").err
        unknown = hep2flow("predict", "--run", RUN, folder, "--model", "nobody")
        assert (unknown.code, unknown.out) == (2, "")
        assert "it has convnext-b, worse" in unknown.err
        finished_store.delete([key for key in added if "/evaluate-" in key])
        finished_store.delete([layout.stage_record(RUN, "evaluate", "convnext-b")])
        assert "add --model, one of convnext-b, worse" in hep2flow("predict", "--run", RUN, folder).err
    finally:
        finished_store.delete(added)
        finished_store.put_json(layout.run_record(RUN), before)
        (record,) = [record for record in view.stages if record.stage == "evaluate"]
        finished_store.put_json(layout.stage_record(RUN, "evaluate", "convnext-b"), record.model_dump(mode="json"))


def refused(finished_store: Store, *arguments: str | Path) -> str:
    """What a command says that must fail, print nothing and write nothing."""
    before = listing(finished_store)
    answer = hep2flow("predict", "--run", RUN, *arguments)
    assert (answer.code, answer.out) == (2, ""), answer.err
    assert "Traceback" not in answer.err
    assert listing(finished_store) == before
    return answer.err


def test_all_images_that_cannot_be_used_are_named_at_once(
    finished: Finished, finished_store: Store, tmp_path: Path
) -> None:
    folder = copied(finished, tmp_path / "cells", 3)
    good = (folder / "001.png").read_bytes()
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "cut_mask.png").write_bytes(good)
    (folder / "no.tif").write_bytes(b"no picture")
    (folder / "no_mask.png").write_bytes((folder / "001_mask.png").read_bytes())
    (folder / "deep.png").write_bytes(builders.png(np.full(builders.disc().shape, 40_000, np.uint16)))
    (folder / "deep_mask.png").write_bytes(builders.png(builders.disc()))
    (folder / "bare.png").write_bytes(good)
    told = refused(finished_store, folder)
    first, *lines = [line for line in told.splitlines() if line.startswith(("hep2flow:", "  "))]
    assert first.startswith(f"hep2flow: {folder}: ")
    for name, what in {
        "cut.png": "is truncated or damaged",
        "cut_mask.png": "mask has",
        "no.tif": "is not a PNG, BMP or TIFF image",
        "deep.png": "has values up to 40000, the network was trained on images of 8 bits",
        "bare.png": "has no mask, other images do",
    }.items():
        assert any(line.startswith(f"  {folder / name}: {what}") for line in lines), (name, told)
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: no such file or folder; check the path"),
        (["empty"], "empty: holds no PNG, BMP or TIFF image"),
        (["notes.txt"], "notes.txt: is not a PNG, BMP or TIFF image"),
        (["cells", "--mask", "nowhere"], "nowhere: no such file or folder"),
        (["cells", "--mask", "cells/001_mask.png"], "is one mask for 2 images"),
        (["cells", "--mask", "empty"], "has no mask in empty; add 001_mask.png there"),
        (["cells/001_mask.png"], "001_mask.png: mask without an image"),
        (["cells", "--format", "i3a"], "no known data set in it"),
        (["cells", "--tta", "flips"], "'--tta'"),
        (["cells", "--abstain-below", "2"], "--abstain-below"),
        (["cells", "--model", "nobody"], "--model nobody: run first has no finished training of that name"),
        ([], "Missing argument"),
    ],
)
def test_bad_input(
    finished: Finished,
    finished_store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    copied(finished, tmp_path / "cells", 2)
    (tmp_path / "cells" / "lonely").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    if arguments and "_mask" in arguments[0]:
        (tmp_path / "cells" / "001.png").unlink()
    assert words in refused(finished_store, *arguments)


def test_unknown_specimens_cannot_vote(finished: Finished, finished_store: Store, tmp_path: Path) -> None:
    folder = builders.write(tmp_path / "cells", builders.i3a())
    assert "--specimen: the specimens of 3 cells are unknown" in refused(finished_store, folder, "--specimen")
    voted = table(hep2flow("predict", "--run", RUN, folder, "--specimen", "--format", "folder"))
    assert list(voted["cells"]) == [3]


def test_a_run_without_a_network_is_told(finished: Finished, finished_store: Store, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "cells", 2)
    answer = hep2flow("predict", "--run", "nobody", folder)
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert "there is no such run" in answer.err


def test_files_that_are_no_images_are_counted(finished: Finished, finished_store: Store, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "cells", 2)
    (folder / "notes.txt").write_text("x")
    told: list[str] = []
    with open_images([str(folder)]) as source:
        assert len(predict(finished_store, RUN, source, log=told.append)) == 2
    assert told == [f"{folder}: 1 files that are no PNG, BMP or TIFF were ignored: notes.txt"]
