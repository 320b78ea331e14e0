"""Report: a run's results as one HTML page; to ``runs/{run_id}/report``."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hep2flow.cells import temporary_folder
from hep2flow.reporting.provenance import replace_run
from hep2flow.selected_on_test import selection_note
from hep2flow.stage_result import StageResult
from hep2flow.stages.split import shared_specimens
from hep2flow.store import layout
from hep2flow.store.datasets import Dataset, open_dataset
from hep2flow.store.publish import publish
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Split, read_split
from hep2flow.store.stage_cache import commit, lookup, stage_key

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES_PER_PATTERN = 4
CellImages = dict[str, dict[str, Any]]  # cell_id -> pattern, image, mask


def report(store: Store, run_id: str, evaluations: list[str], sweeps: Sequence[tuple[str, str]] = ()) -> StageResult:
    """Write ``index.html``, its figures, ``summary.md`` and the model cards for the evaluations of one run.

    Where another run has a report of the same evaluations, it is copied, and the facts of its run (id, versions, keys,
    times) are replaced by this run's. ``evaluations`` are URIs, all of the same cells and split; those of one recipe under
    several seeds are shown together. ``sweeps``: URI of each sweep and its judgement, empty where it was not judged.
    """
    # Keys and not URIs: equal in every bucket.
    inputs = {
        "evaluations": [store.key(uri) for uri in evaluations],
        "sweeps": [[store.key(uri) if uri else "" for uri in sweep] for sweep in sweeps],
    }
    prefix, key = layout.report_prefix(run_id), stage_key("report", inputs)
    entry = lookup(store, "report", key)
    with temporary_folder() as scratch:
        folder = scratch / "report"
        if entry is None:
            shared, summary = _write(store, run_id, evaluations, sweeps, folder)
        else:
            shared, summary = entry["shared"], entry["summary"]
            store.get_folder(store.key(entry["output"]["uri"]), folder)
            (folder / layout.MANIFEST).unlink()
            replace_run(folder, entry["run_id"], run_id, _provenance(store, run_id, shared))
        manifest = {"kind": "report", "run_id": run_id, "evaluations": evaluations}
        publish(store, folder, prefix, {**manifest, **selection_note(summary["selected_on_test"])})
    if entry is None:
        output = {"uri": store.uri(prefix), "kind": "folder"}
        commit(store, "report", key, {"output": output, "run_id": run_id, "shared": shared, "summary": summary})
    return StageResult(stage="report", key=key, uri=store.uri(prefix), summary=summary)


def _write(
    store: Store, run_id: str, evaluations: list[str], sweeps: Sequence[tuple[str, str]], folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write a new report; returns what the trainings add to its provenance, and the stage's summary."""
    # Slow to import: not for a cached report.
    from hep2flow.reporting.page import write
    from hep2flow.reporting.report_content import ReportContent
    from hep2flow.stages.artifacts import read_model, read_sweep
    from hep2flow.stages.leakage import find_leakage

    manifest = store.get_json(f"{store.key(evaluations[0])}/manifest.json")
    dataset, split = open_dataset(store, manifest["dataset"]), read_split(store, manifest["split"])
    models = [read_model(store, uri) for uri in evaluations]
    cells = dataset.table()
    example_ids = _example_ids(dataset, split)
    wrong = {cell for model in models if model.mistakes is not None for cell in model.mistakes["cell_id"]}
    original, masked = _read_images(store, dataset, example_ids | wrong)
    examples: dict[str, list[tuple[bytes, bytes]]] = defaultdict(list)
    for cell in sorted(example_ids):
        examples[masked[cell]["pattern"]].append((original[cell]["image"], masked[cell]["image"]))
    facts = dataset.manifest["facts"]
    source = "derived" if facts["mask"]["derived"] else "given"
    shared = {key: {one.metrics["recipe"]: one.training[key] for one in models} for key in ("hardware", "weights")}
    content = ReportContent(
        run_id=run_id,
        dataset={**dataset.manifest, **facts, "mask": {**facts["mask"], "source": source}},
        split=_split_facts(split, cells),
        models=models,
        cells=cells,
        examples=dict(examples),
        originals={cell: (original[cell]["image"], original[cell]["mask"] or masked[cell]["mask"]) for cell in wrong},
        provenance=_provenance(store, run_id, shared),
        sweeps=[read_sweep(store, sweep, judgement) for sweep, judgement in sweeps],
        leakage=find_leakage(store, manifest["dataset"], manifest["split"]),
    )
    write(content, folder)
    best, scored = content.families[0], {}
    for family in content.families:
        seeds = {"seeds": len(family.models), "aca_sd": family.deviation("aca")} if len(family.models) > 1 else {}
        scored[family.models[0].title] = {name: family.scores[name] for name in ("aca", "mca", "macro_f1")} | seeds
    return shared, {
        "best": best.name,
        "subset": best.representative.metrics["subset"],
        "models": scored,
        "selected_on_test": content.selected_on_test,
    }


def _split_facts(split: Split, cells: "pd.DataFrame") -> dict[str, Any]:
    patterns = cells["pattern"].groupby(cells["cell_id"].map(split.subsets), sort=False)
    return {
        "protocol": split.protocol,
        "ratio": split.ratio,
        "seed": split.seed,
        "digest": split.digest,
        "counts": split.counts(),
        "shared_specimens": shared_specimens(cells, split.subsets),
        "pattern_counts": {subset: group.value_counts(sort=False).to_dict() for subset, group in patterns},
    }


def _example_ids(dataset: Dataset, split: Split) -> set[str]:
    """A few training cells of each pattern."""
    table = dataset.table(["cell_id", "pattern"])
    table = table[table["cell_id"].isin(split.ids("train"))].sort_values("cell_id")
    # Evenly spaced over the sorted IDs, where neighbours are often of one specimen.
    return {
        str(group["cell_id"].iloc[round(index * (len(group) - 1) / max(EXAMPLES_PER_PATTERN - 1, 1))])
        for _, group in table.groupby("pattern")
        for index in range(EXAMPLES_PER_PATTERN)
    }


def _read_images(store: Store, dataset: Dataset, keep: set[str]) -> tuple[CellImages, CellImages]:
    """Cells before masking, and as the networks see them."""
    columns = ["cell_id", "pattern", "image", "mask"]
    masked = {row["cell_id"]: row for row in dataset.rows(keep=keep, columns=columns)}
    parent = dataset.manifest["facts"]["parent"]
    if parent is None:
        return masked, masked
    return {row["cell_id"]: row for row in open_dataset(store, parent).rows(keep=keep, columns=columns)}, masked


def _provenance(store: Store, run_id: str, shared: dict[str, Any]) -> dict[str, Any]:
    view = show_run(store, run_id)
    stages = {layout.stage_name(stage.stage, stage.model): stage for stage in view.stages}
    return {
        "run": run_id,
        "started": view.run.started.isoformat(),
        "versions": view.run.versions,
        **shared,
        "keys": {name: stage.key for name, stage in stages.items() if stage.key},
        "seconds": {name: stage.seconds for name, stage in stages.items() if stage.seconds is not None},
    }
