"""External evaluation: a run's frozen network on another data set, whose patterns may have other names or other limits."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from hep2flow.errors import UserError
from hep2flow.selected_on_test import OPTIMISTIC
from hep2flow.stage_result import Progress, StageResult
from hep2flow.stages.cell_masks import DERIVED_NOTE
from hep2flow.stages.evaluate import prediction_table, write_predictions
from hep2flow.stages.masked_variant import in_form
from hep2flow.stages.trained_models import Trained, find_trained, load_network
from hep2flow.store import layout
from hep2flow.store.datasets import Dataset, open_dataset
from hep2flow.store.runs import running_stage
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split
from hep2flow.store.stage_cache import code_version, commit, lookup, stage_key

EXTERNAL = "external"
ClassMap = dict[str, str | None]


def evaluate_external(
    store: Store,
    run_id: str,
    model: str | None,
    dataset: str,
    maps: list[str],
    tell: Callable[[str], None],
    progress: Progress | None = None,
) -> StageResult:
    """Evaluate on every cell of another data set; writes what :func:`hep2flow.stages.evaluate.evaluate` writes.

    model:   as for :func:`hep2flow.stages.trained_models.find_trained`
    dataset: URI; masked as the network's own cells were, whatever form it is in
    maps:    as for :func:`map_classes`
    tell:    told of cells that the network has seen in training, a line each
    ``metrics.json`` has ``subset: external``, and besides ``class_map`` (None: left out), ``dropped`` {pattern: cells},
    ``training_dataset`` (digest), ``trained_on`` and ``selected_on`` (how many of these cells the network was trained on,
    and its epoch chosen on; None where its own cells are gone from the store).
    The run records the evaluation, which goes when the run is deleted.
    Raises UserError for a run without such a network, and for patterns that nothing maps.
    """
    trained = find_trained(store, run_id, model, tell)
    training = store.get_json(f"{store.key(trained.uri)}/manifest.json")
    class_map = map_classes(open_dataset(store, dataset).ref.labels, training["labels"], maps)
    cells = open_dataset(store, in_form(store, dataset, trained.recipe.data))
    if derived := cells.manifest["facts"]["mask"]["derived"]:
        tell(DERIVED_NOTE.format(derived))
    inputs = {
        "training": store.key(trained.uri),
        "dataset": cells.ref.digest,
        "class_map": class_map,
        "eval": trained.recipe.eval.model_dump(mode="json"),
        "name": trained.name,
    }
    key = stage_key(EXTERNAL, inputs, code_version(EXTERNAL))
    uri = store.uri(layout.evaluation_prefix(key))
    with running_stage(store, run_id, EXTERNAL, f"{trained.name}-on-{cells.manifest['name']}-{key[:8]}") as record:
        record.announce(key)
        entry = lookup(store, EXTERNAL, key)
        if entry is None:
            seen = _seen(store, training, cells)
            summary = _evaluate(store, trained, training, cells, class_map, seen, uri, tell, progress)
            commit(store, EXTERNAL, key, {"output": {"uri": uri, "kind": "folder"}, "summary": summary})
        else:
            summary = entry["summary"]
        result = StageResult(stage=EXTERNAL, key=key, uri=uri, cached=entry is not None, summary=summary)
        record.take(result)
    _warn(trained.name, summary, tell)
    return result


def map_classes(others: list[str], labels: list[str], maps: list[str]) -> ClassMap:
    """What each pattern of another data set is called here; None for one that is left out.

    others: its patterns; labels: what the network knows
    maps:   ``OTHER=OURS``, or ``OTHER=`` for one that is left out; a pattern of an equal name needs none. Case does not
            matter.
    Raises UserError for names that are none, and naming all patterns without a map.
    """
    theirs, ours = ({name.lower(): name for name in names} for names in (others, labels))
    told: ClassMap = {}
    for text in maps:
        other, separator, our = (part.strip() for part in text.partition("="))
        if not separator or other.lower() not in theirs:
            raise UserError(f"--map {text}: write OTHER=OURS or OTHER=, OTHER is one of {', '.join(others)}")
        if our and our.lower() not in ours:
            raise UserError(f"--map {text}: the network does not know {our}; it knows {', '.join(labels)}")
        if theirs[other.lower()] in told:
            raise UserError(f"--map {text}: {other} is mapped twice")
        told[theirs[other.lower()]] = ours[our.lower()] if our else None
    class_map = {name: told.get(name, name) for name in others}
    missing = [name for name in others if name not in told and name not in labels]
    if missing:
        raise UserError(
            f"patterns that the network does not know: {', '.join(missing)}; for each add --map {missing[0]}=OURS, "
            f"OURS one of {', '.join(labels)}, or --map {missing[0]}= to leave its cells out"
        )
    if not any(class_map.values()):
        raise UserError(f"--map: leaves out every pattern, {', '.join(others)}; keep one at least")
    return class_map


def _seen(store: Store, training: dict[str, Any], cells: Dataset) -> dict[str, set[str]] | None:
    """Ids of cells whose pixels the network has met, by subset; None where its own cells are gone from the store."""
    try:
        own, division = open_dataset(store, training["dataset"]), read_split(store, training["split"])
    except UserError:
        return None
    # As they came: masks of the same cell may differ, its pixels do not.
    here, there = (_unmasked(store, opened).table(["cell_id", "sha256"]) for opened in (own, cells))
    return {
        subset: set(
            there.loc[there["sha256"].isin(here.loc[here["cell_id"].isin(division.ids(subset)), "sha256"]), "cell_id"]
        )
        for subset in ("train", "val")
    }


def _unmasked(store: Store, opened: Dataset) -> Dataset:
    parent = opened.manifest["facts"].get("parent")
    try:
        return opened if parent is None else open_dataset(store, parent)
    except UserError:  # deleted meanwhile
        return opened


def _evaluate(
    store: Store,
    trained: Trained,
    training: dict[str, Any],
    cells: Dataset,
    class_map: ClassMap,
    seen: dict[str, set[str]] | None,
    uri: str,
    tell: Callable[[str], None],
    progress: Progress | None,
) -> dict[str, Any]:
    # torch and matplotlib take seconds to import: not for an evaluation that is there already.
    import torch

    from hep2flow.data.cell_set import CellSet
    from hep2flow.evaluation.metrics import evaluate_predictions
    from hep2flow.evaluation.predict import predict
    from hep2flow.reporting.figures import confusion_matrix, save

    started = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, description = load_network(store, trained, device, tell)
    recipe, labels = description.recipe, description.labels
    rows = [{**row, "pattern": class_map[row["pattern"]], "other": row["pattern"]} for row in cells.rows()]
    dropped = Counter(row["other"] for row in rows if row["pattern"] is None)
    rows = [row for row in rows if row["pattern"] is not None]
    # Another camera has another depth: its white is white here too.
    plain, augmented = predict(
        network, CellSet(rows, labels, cells.manifest["bits"], recipe, training=False), recipe, device, progress
    )
    meta = pd.DataFrame(rows, columns=["cell_id", "intensity", "specimen_id", "pattern"])
    predictions = prediction_table(meta, augmented, labels)
    metrics = evaluate_predictions(predictions, meta, labels, seed=recipe.train.seed)
    tta_off = None
    if recipe.eval.tta != "none":
        without = evaluate_predictions(prediction_table(meta, plain, labels), meta, labels, bootstrap=1)
        tta_off = {name: without[name] for name in ("aca", "mca", "macro_f1")}
    ids = set(meta["cell_id"])
    met: dict[str, int | None] = {"trained_on": None, "selected_on": None}
    if seen is not None:
        met = {"trained_on": len(seen["train"] & ids), "selected_on": len(seen["val"] & ids)}
    chosen_on = {
        "selected_on_test": bool(met["selected_on"]),
        **({"warning": OPTIMISTIC} if met["selected_on"] else {}),
    }
    facts = {
        "subset": EXTERNAL,
        "class_map": class_map,
        "dropped": dict(dropped),
        "training_dataset": store.key(training["dataset"]).rsplit("/", 1)[1],
        **met,
        **chosen_on,
    }
    metrics |= {
        "recipe": trained.name,
        "profile": recipe.profile,
        "paper_model": recipe.paper_model,
        "network": recipe.model.network,
        "image_size": recipe.model.image_size,
        "protocol": EXTERNAL,
        **facts,
        "tta": recipe.eval.tta != "none",
        "tta_off": tta_off,
        "synthetic": cells.manifest["facts"]["synthetic"],
        "seed": training["seed"],
        "updates": training["updates"],
        "timing": {"evaluate_seconds": time.monotonic() - started},
    }
    with tempfile.TemporaryDirectory(prefix="hep2flow-external-") as scratch:
        folder = Path(scratch)
        text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
        write_predictions(predictions, chosen_on, folder / "predictions.parquet")
        title = f"{recipe.title}, external: {cells.manifest['name']}"
        save(confusion_matrix(metrics, title), folder, "confusion_matrix")
        manifest = {"kind": "evaluation", "training": trained.uri, "dataset": cells.ref.uri, **facts}
        store.publish(folder, store.key(uri), {**manifest, "recipe": recipe.model_dump(mode="json")})
    return {
        **{name: metrics[name] for name in ("network", "subset", "n", "aca", "mca", "macro_f1", "selected_on_test")},
        **{name: facts[name] for name in ("class_map", "dropped", "trained_on", "selected_on")},
    }


def _warn(name: str, summary: dict[str, Any], tell: Callable[[str], None]) -> None:
    for what, count in (("was trained on", summary["trained_on"]), ("chose its epoch on", summary["selected_on"])):
        if count:
            tell(f"{count} of these {summary['n']} cells are cells that {name} {what}: the figures are optimistic")
    if summary["trained_on"] is None:
        tell(f"the cells that {name} was trained on are gone from the store: whether these are the same is unknown")
    if summary["dropped"]:
        cells = ", ".join(f"{pattern} {count}" for pattern, count in summary["dropped"].items())
        tell(f"cells left out: {cells}")
