"""Predict: a finished run's network on unlabelled images."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from hep2flow.errors import DataFaults, Fault, UserError
from hep2flow.recipe import Recipe
from hep2flow.sources.source import Source
from hep2flow.stage_result import Progress
from hep2flow.stages.mask import DERIVED_NOTE, mask_cell
from hep2flow.stages.trained_models import LoadedModel, find_model, load_network
from hep2flow.store.outage import Log
from hep2flow.store.s3 import Store

ABSTAIN = "abstain"


def predict(
    store: Store,
    run_id: str,
    source: Source,
    *,
    model: str | None = None,
    tta: str | None = None,
    log: Log,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Classify images, masked, resized and normalised as the network's training images were.

    The source is one of :func:`hep2flow.stages.unlabelled_images.open_images`; ``model`` is chosen as by
    :func:`hep2flow.stages.trained_models.find_model`; ``tta`` is none or dihedral, None for what the run's evaluation uses;
    ``log`` is called with a line for each note that a reader of the table needs.

    Returns:
        One row per image: file, specimen, predicted, confidence (probability of the predicted class), ``p_<label>``.

    Raises:
        UserError: The run has no such network.
        DataFaults: With every image that cannot be used.
    """
    trained = find_model(store, run_id, model, log)
    # torch takes seconds to import: not for a run that does not exist.
    from hep2flow.data.cell_set import CellSet
    from hep2flow.evaluation.predict import predict_probabilities

    loaded = load_network(store, trained, log)
    network, description, device = loaded
    recipe, labels = description.recipe, description.labels
    if tta is not None:
        recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"tta": tta})})
    for note in source.notes:
        log(note)
    faults: list[Fault] = []
    cells = CellSet(_rows(source, loaded, faults, log), labels, description.bits, recipe, training=False)
    if faults:
        raise DataFaults(source.name, faults)
    _, probabilities = predict_probabilities(network, cells, recipe, device, progress)
    by_class = pd.DataFrame(probabilities.double().numpy(), columns=[f"p_{label}" for label in labels])
    table: pd.DataFrame = pd.DataFrame(
        {
            "file": cells.ids,
            "specimen": [listing.specimen_id for listing in source.listings],
            "predicted": [labels[index] for index in probabilities.argmax(1).tolist()],
            "confidence": by_class.max(axis=1),
            **by_class,
        }
    )
    return table


def specimen_votes(table: pd.DataFrame) -> pd.DataFrame:
    """Majority vote of the cells of each specimen in :func:`predict`'s table.

    Returns:
        One row per specimen: specimen, predicted (a tied vote goes to the likelier class, as in an evaluation), share
        (of the cells that voted for it, (0, 1]), cells (how many), confidence (its mean probability over all cells), and
        ``p_<label>`` (the mean probability of each class).

    Raises:
        UserError: The specimen of a cell is unknown.
    """
    if len(unknown := table.loc[table["specimen"].isna(), "file"]):
        raise UserError(
            f"--specimen: the specimens of {len(unknown)} cells are unknown, for example of {unknown.iloc[0]}; "
            "put each specimen's images in a folder of its own, and add --format folder"
        )
    labels = [name.removeprefix("p_") for name in table.columns if name.startswith("p_")]
    rows: list[dict[str, Any]] = []
    for specimen, cells in table.groupby("specimen", sort=True):
        means = cells[[f"p_{label}" for label in labels]].mean()
        votes = cells["predicted"].value_counts()
        won = max(votes.index, key=lambda label: (votes[label], means[f"p_{label}"], -labels.index(label)))
        share, confidence = votes[won] / len(cells), means[f"p_{won}"]
        vote = {"predicted": won, "share": share, "cells": len(cells), "confidence": confidence}
        rows.append({"specimen": specimen, **vote, **means})
    voted: pd.DataFrame = pd.DataFrame(rows)
    return voted


def mark_abstentions(table: pd.DataFrame, below: float) -> pd.DataFrame:
    """The table with ``predicted`` abstain where the confidence is below a threshold."""
    marked: pd.DataFrame = table.assign(predicted=table["predicted"].mask(table["confidence"] < below, ABSTAIN))
    return marked


def _rows(source: Source, loaded: LoadedModel, faults: list[Fault], log: Log) -> Iterator[dict[str, Any]]:
    """Rows of the Cell table, masked as the recipe says; appends a fault for each image that cannot be used."""
    description = loaded.description
    recipe, white = description.recipe, 2**description.bits - 1
    _check_masks(source, recipe, faults)
    derived = 0
    for read in source.cells(faults):
        if read.max_value > white:
            what = f"has values up to {read.max_value}, the network was trained on images of {description.bits} bits"
            faults.append(Fault(read.cell.cell_id, what, f"scale it, so that white is {white}"))
            continue
        cell = read.cell
        if recipe.data.mask != "none":
            cell, _, _, was_derived = mask_cell(cell, recipe.data.mask)
            derived += was_derived
        # The pattern is unknown; a CellSet needs some label, which prediction does not read.
        yield {**vars(cell), "pattern": description.labels[0]}
    if derived and not faults:
        log(DERIVED_NOTE.format(derived))


def _check_masks(source: Source, recipe: Recipe, faults: list[Fault]) -> None:
    """Require masks of all cells, or of none, where they can be derived; drop masks that the network does not use."""
    data, features = recipe.data, recipe.model.aux_features
    if data.mask == "none" and not features:
        source.listings = [replace(listing, mask=None) for listing in source.listings]
        return
    without = [listing for listing in source.listings if listing.mask is None]
    if 0 < len(without) < len(source.listings):
        what, remedy = "has no mask, other images do", "add its mask, or remove all masks"
        faults += [Fault(listing.image, what, remedy) for listing in without]
    elif without and (data.mask == "none" or data.mask_source == "given"):
        why = f"measures each cell ({', '.join(features)})" if data.mask == "none" else "was trained on given masks"
        raise UserError(f"the network {why}: give every image a mask, NAME_mask.png beside it or with --mask")
