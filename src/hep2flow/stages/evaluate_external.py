"""External evaluation: a run's frozen network on another data set, whose patterns may have other names or other limits."""

import time
from collections import Counter
from typing import Any

from hep2flow.cells import temporary_folder
from hep2flow.errors import UserError
from hep2flow.selected_on_test import selection_note
from hep2flow.stage_result import Progress, StageResult
from hep2flow.stages.mask import DERIVED_NOTE
from hep2flow.stages.masked_variant import masked_variant
from hep2flow.stages.trained_models import TrainedModel, find_model, load_network
from hep2flow.store import layout
from hep2flow.store.datasets import Dataset, open_dataset
from hep2flow.store.outage import Log
from hep2flow.store.publish import publish
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split
from hep2flow.store.stage_cache import CachedStage, stage_key
from hep2flow.store.stage_recorder import running_stage

EXTERNAL = "external"
ClassMap = dict[str, str | None]


def evaluate_external(
    store: Store, run_id: str, model: str | None, dataset: str, maps: list[str], log: Log, progress: Progress | None
) -> StageResult:
    """Evaluate on every cell of another data set, masked as the network's own cells were.

    The run records the evaluation, which is deleted with the run. ``model`` is chosen as by
    :func:`hep2flow.stages.trained_models.find_model`, ``maps`` are those of :func:`map_classes`, ``dataset`` is the URI of
    the other data set, however it is masked; ``log`` is called with a line on masks, on cells that the network was trained
    on, and on cells left out.

    Returns:
        The evaluation: ``metrics.json``, ``predictions.parquet`` and the confusion matrix. The metrics have ``subset``
        external, and besides ``class_map`` (None: left out), ``dropped`` {pattern: cells}, ``training_dataset`` (digest),
        ``trained_on`` and ``selected_on`` (how many of these cells the network was trained on, and its epoch selected on;
        None where its own cells are no longer in the store).

    Raises:
        UserError: The run has no such network, or a pattern is not mapped.
    """
    trained = find_model(store, run_id, model, log)
    labels = store.get_json(f"{store.key(trained.uri)}/manifest.json")["labels"]
    class_map = map_classes(open_dataset(store, dataset).labels, labels, maps)
    cells = open_dataset(store, masked_variant(store, dataset, trained.recipe.data))
    if derived := cells.manifest["facts"]["mask"]["derived"]:
        log(DERIVED_NOTE.format(derived))
    inputs = {
        "training": store.key(trained.uri),
        "dataset": cells.digest,
        "class_map": class_map,
        "eval": trained.recipe.eval.model_dump(mode="json"),
        "name": trained.name,
    }
    cache = CachedStage(store, EXTERNAL, stage_key(EXTERNAL, inputs))
    name = f"{trained.name}-on-{cells.manifest['name']}-{cache.key[:8]}"
    with running_stage(store, run_id, EXTERNAL, name) as record:
        record.save_key(cache.key)
        result = cache.lookup() or _evaluate(cache, trained, cells, class_map, log, progress)
        record.set_result(result)
    summary, who = result.summary, trained.name
    for what, count in (("was trained on", summary["trained_on"]), ("selected its epoch on", summary["selected_on"])):
        if count:
            log(f"{count} of these {summary['n']} cells are cells that {who} {what}: the figures are optimistic")
    if summary["trained_on"] is None:
        log(f"the cells that {who} was trained on are gone from the store: whether these are the same is unknown")
    if summary["dropped"]:
        log("cells left out: " + ", ".join(f"{pattern} {count}" for pattern, count in summary["dropped"].items()))
    return result


def map_classes(others: list[str], labels: list[str], maps: list[str]) -> ClassMap:
    """The network's label of each pattern of another data set; None for one that is left out.

    ``maps`` are ``OTHER=OURS``, or ``OTHER=`` for one that is left out, in any case; equal names need no map.

    Raises:
        UserError: A map has an unknown name, or a pattern has no map; all such patterns are named.
    """
    theirs, ours = ({name.lower(): name for name in names} for names in (others, labels))
    given: ClassMap = {}
    for text in maps:
        other, separator, our = (part.strip() for part in text.partition("="))
        if not separator or other.lower() not in theirs:
            raise UserError(f"--map {text}: write OTHER=OURS or OTHER=, OTHER is one of {', '.join(others)}")
        if our and our.lower() not in ours:
            raise UserError(f"--map {text}: the network does not know {our}; it knows {', '.join(labels)}")
        if theirs[other.lower()] in given:
            raise UserError(f"--map {text}: {other} is mapped twice")
        given[theirs[other.lower()]] = ours[our.lower()] if our else None
    class_map = {name: given.get(name, name) for name in others}
    if missing := [name for name in others if name not in given and name not in labels]:
        raise UserError(
            f"patterns that the network does not know: {', '.join(missing)}; for each add --map {missing[0]}=OURS, "
            f"OURS one of {', '.join(labels)}, or --map {missing[0]}= to leave its cells out"
        )
    if not any(class_map.values()):
        raise UserError(f"--map: leaves out every pattern, {', '.join(others)}; keep one at least")
    return class_map


def _evaluate(
    cache: CachedStage, trained: TrainedModel, cells: Dataset, class_map: ClassMap, log: Log, progress: Progress | None
) -> StageResult:
    # torch and matplotlib take seconds to import: not for a cached evaluation.
    from hep2flow.data.cell_set import CellSet
    from hep2flow.stages.write_evaluation import SUMMARY, score_cells, write_evaluation

    store, prefix, started = cache.store, layout.output_prefix(EXTERNAL, cache.key), time.monotonic()
    training = store.get_json(f"{store.key(trained.uri)}/manifest.json")
    overlap = _training_overlap(store, training, cells)
    model = load_network(store, trained, log)
    recipe = model.description.recipe
    mapped = [{**row, "pattern": class_map[row["pattern"]], "other": row["pattern"]} for row in cells.rows()]
    dropped = Counter(row["other"] for row in mapped if row["pattern"] is None)
    rows = [row for row in mapped if row["pattern"] is not None]
    # Another camera may have another bit depth: its own white becomes white here too.
    cell_set = CellSet(rows, model.description.labels, cells.manifest["bits"], recipe, training=False)
    predictions, metrics = score_cells(model, cell_set, rows, recipe.train.seed, progress)
    ids, subsets = set(cell_set.ids), {"trained_on": "train", "selected_on": "val"}
    known = {name: None if overlap is None else len(overlap[subset] & ids) for name, subset in subsets.items()}
    selection = selection_note(bool(known["selected_on"]))
    facts = {
        "subset": EXTERNAL,
        "class_map": class_map,
        "dropped": dict(dropped),
        "training_dataset": store.key(training["dataset"]).rsplit("/", 1)[1],
        **known,
        **selection,
    }
    metrics |= {
        "recipe": trained.name,
        **recipe.model_dump(include={"profile", "paper_model"}),
        "protocol": EXTERNAL,
        **facts,
        "synthetic": cells.manifest["facts"]["synthetic"],
        "seed": training["seed"],
        "updates": training["updates"],
        "timing": {"evaluate_seconds": time.monotonic() - started},
    }
    with temporary_folder() as folder:
        title = f"{recipe.title}, external: {cells.manifest['name']}"
        write_evaluation(folder, metrics, predictions, selection, title)
        manifest = {"kind": "evaluation", "training": trained.uri, "dataset": cells.uri, **facts}
        publish(store, folder, prefix, {**manifest, "recipe": recipe.model_dump(mode="json")})
    told = (*SUMMARY, "class_map", "dropped", "trained_on", "selected_on")
    return cache.commit(store.uri(prefix), "folder", {name: metrics[name] for name in told})


def _training_overlap(store: Store, training: dict[str, Any], cells: Dataset) -> dict[str, set[str]] | None:
    """Ids of cells whose pixels are among the network's own, by subset; None where those are no longer in the store."""
    try:
        own, division = open_dataset(store, training["dataset"]), read_split(store, training["split"])
    except UserError:
        return None
    # Before masking: masks of the same cell may differ, its pixels do not.
    ours, theirs = (_unmasked(store, opened).table(["cell_id", "sha256"]) for opened in (own, cells))
    overlap = {}
    for subset in ("train", "val"):
        pixels = ours.loc[ours["cell_id"].isin(division.ids(subset)), "sha256"]
        overlap[subset] = set(theirs.loc[theirs["sha256"].isin(pixels), "cell_id"])
    return overlap


def _unmasked(store: Store, opened: Dataset) -> Dataset:
    parent = opened.manifest["facts"].get("parent")
    try:
        return opened if parent is None else open_dataset(store, parent)
    except UserError:  # deleted meanwhile
        return opened
