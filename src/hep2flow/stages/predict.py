"""Predict: what a finished run's network says of images that nobody labelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from hep2flow.errors import DataFaults, Fault, UserError
from hep2flow.recipe import Recipe
from hep2flow.sources.source import ReadCell, Source
from hep2flow.stage_result import Progress
from hep2flow.stages.cell_masks import DERIVED_NOTE, masked_cell
from hep2flow.stages.trained_models import find_trained, load_network
from hep2flow.stages.unlabelled_images import open_images
from hep2flow.store.s3 import Store

if TYPE_CHECKING:
    from hep2flow.training.checkpoint import Description

ABSTAIN = "abstain"


def predict(
    store: Store,
    run_id: str,
    images: list[str],
    *,
    model: str | None = None,
    format: str = "auto",
    mask: str | None = None,
    tta: str | None = None,
    tell: Callable[[str], None],
    progress: Progress | None = None,
) -> pd.DataFrame:
    """One row per image: file, specimen, predicted, confidence (probability of the predicted class), ``p_<label>``.

    images, format, mask: as for :func:`hep2flow.stages.unlabelled_images.open_images`
    model: name of a recipe of the run; None: see :func:`hep2flow.stages.trained_models.find_trained`
    tta:   none | dihedral; None: as the run evaluates
    tell:  told of what a reader of the table should know, a line each
    Masked, resized and normalised as the network was trained: everything but TTA is read from its checkpoint.
    Raises UserError for a run without such a network, and DataFaults with every image that cannot be used.
    """
    with open_images(images, format, mask) as source:
        trained = find_trained(store, run_id, model, tell)
        # torch takes seconds to import: not for a path that is none.
        import torch

        from hep2flow.data.cell_set import CellSet
        from hep2flow.evaluation.predict import predict as probabilities_of

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network, description = load_network(store, trained, device, tell)
        recipe = description.recipe
        if tta is not None:
            recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"tta": tta})})
        for note in source.notes:
            tell(note)
        faults: list[Fault] = []
        rows = _rows(source, description, faults, tell)
        cells = CellSet(rows, description.labels, description.bits, recipe, training=False)
        if faults:
            raise DataFaults(source.name, faults)
        _, probabilities = probabilities_of(network, cells, recipe, device, progress)
    columns = [f"p_{label}" for label in description.labels]
    each = pd.DataFrame(probabilities.double().numpy(), columns=columns)
    table: pd.DataFrame = pd.DataFrame(
        {
            "file": cells.ids,
            "specimen": [listing.specimen_id for listing in source.listings],
            "predicted": [description.labels[index] for index in probabilities.argmax(1).tolist()],
            "confidence": each.max(axis=1),
        }
    )
    joined: pd.DataFrame = pd.concat([table, each], axis=1)
    return joined


def vote(table: pd.DataFrame) -> pd.DataFrame:
    """One row per specimen of :func:`predict`'s table: specimen, predicted, share, cells, confidence, ``p_<label>``.

    predicted:  what most cells are; a tied vote goes to the likelier class, as in an evaluation
    share:      of the cells that voted for it, (0, 1]
    confidence: its mean probability over all cells; ``p_<label>``: the mean probability of each
    Raises UserError where the specimen of a cell is unknown.
    """
    unknown = table.loc[table["specimen"].isna(), "file"]
    if len(unknown):
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
        rows.append(
            {
                "specimen": specimen,
                "predicted": won,
                "share": votes[won] / len(cells),
                "cells": len(cells),
                "confidence": means[f"p_{won}"],
                **means,
            }
        )
    voted: pd.DataFrame = pd.DataFrame(rows)
    return voted


def abstaining(table: pd.DataFrame, below: float) -> pd.DataFrame:
    """The table with ``predicted`` abstain where the confidence is lower."""
    told: pd.DataFrame = table.assign(predicted=table["predicted"].mask(table["confidence"] < below, ABSTAIN))
    return told


def _rows(
    source: Source, description: Description, faults: list[Fault], tell: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Rows of the Cell table, masked as the recipe says; what cannot be used is appended to ``faults``."""
    recipe, brightest = description.recipe, 2**description.bits - 1
    _settle_masks(source, recipe, faults)
    derived = 0
    for read in source.cells(faults):
        if read.max_value > brightest:
            faults.append(_too_deep(read, description.bits))
            continue
        cell = read.cell
        if recipe.data.mask != "none":
            cell, _, _, was_derived = masked_cell(cell, recipe.data.mask)
            derived += was_derived
        # Nobody knows the pattern: any label stands for it, and none is read.
        yield {**vars(cell), "pattern": description.labels[0]}
    if derived and not faults:
        tell(DERIVED_NOTE.format(derived))


def _settle_masks(source: Source, recipe: Recipe, faults: list[Fault]) -> None:
    """Masks for all cells, or for none where they are derived, or where nobody looks at them."""
    data, features = recipe.data, recipe.model.aux_features
    if data.mask == "none" and not features:
        source.listings = [replace(listing, mask=None) for listing in source.listings]
        return
    without = [listing for listing in source.listings if listing.mask is None]
    if 0 < len(without) < len(source.listings):
        faults += [
            Fault(listing.image, "has no mask, other images do", "add its mask, or remove all masks")
            for listing in without
        ]
    elif without and (data.mask == "none" or data.mask_source == "given"):
        why = f"measures each cell ({', '.join(features)})" if data.mask == "none" else "was trained on given masks"
        raise UserError(f"the network {why}: give every image a mask, NAME_mask.png beside it or with --mask")


def _too_deep(read: ReadCell, bits: int) -> Fault:
    return Fault(
        read.cell.cell_id,
        f"has values up to {read.max_value}, the network was trained on images of {bits} bits",
        f"scale it, so that white is {2**bits - 1}",
    )
