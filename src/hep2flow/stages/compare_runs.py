"""Compare: the models of two runs, or of one, on the cells that all were evaluated on."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

from hep2flow.errors import UserError
from hep2flow.evaluation.paired_tests import DifferentCellsError
from hep2flow.reporting.comparison import compare
from hep2flow.reporting.report_content import Family, families_of
from hep2flow.stages.artifacts import finished_evaluations, read_model
from hep2flow.store.datasets import Dataset, open_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.splits import split_digest


@dataclass(frozen=True)
class _EvaluatedRun:
    """A run with its models, best first, all of one data set and one split."""

    run_id: str
    families: list[Family]
    dataset: Dataset
    split: str

    @property
    def by_recipe(self) -> dict[str, Family]:
        return {family.recipe_name: family for family in self.families}

    @property
    def facts(self) -> dict[str, str]:
        return {"run": self.run_id, "dataset": self.dataset.digest, "split": self.split}


def compare_runs(store: Store, first: str, second: str) -> dict[str, Any]:
    """Compare the models of two runs that share a recipe's name, or, where none does, the best of each.

    If both ids name the same run, every two of its models are compared.

    Returns:
        ``runs`` [first, second], ``each_best`` (whether no name was shared), ``unpaired`` {run: recipes that only it has,
        where names are shared}, and ``comparisons``, one for each pair: see
        :func:`hep2flow.reporting.comparison.compare`, both sides also with ``run`` and the digests ``dataset`` and
        ``split``.

    Raises:
        UserError: A run does not exist or has no finished evaluation, the only run has only one model, or the two were
            evaluated on different cells.
    """
    ours = _read_run(store, first)
    if first == second:
        if len(ours.families) == 1:
            raise UserError(f"run {first}: has one model only, so there is nothing to compare; give another run")
        return _compare_pairs(ours, ours, list(combinations(ours.families, 2)))
    theirs = _read_run(store, second)
    _check_pixels(store, ours, theirs)
    shared = [name for name in ours.by_recipe if name in theirs.by_recipe]
    if not shared:
        return {**_compare_pairs(ours, theirs, [(ours.families[0], theirs.families[0])]), "each_best": True}
    unpaired = {run.run_id: [name for name in run.by_recipe if name not in shared] for run in (ours, theirs)}
    return {
        **_compare_pairs(ours, theirs, [(ours.by_recipe[name], theirs.by_recipe[name]) for name in shared]),
        "unpaired": {run_id: names for run_id, names in unpaired.items() if names},
    }


def _compare_pairs(first: _EvaluatedRun, second: _EvaluatedRun, pairs: list[tuple[Family, Family]]) -> dict[str, Any]:
    comparisons = []
    for ours, theirs in pairs:
        try:
            comparison = compare(ours, theirs, ours.compare_with(theirs))
        except DifferentCellsError as error:
            one, other = _cells(ours), _cells(theirs)
            how = f"{len(one):,} and {len(other):,}, {len(one & other):,} in common"
            raise _different_cells(first, second, f"{how}, under other labels" if one == other else how) from error
        comparison["first"] |= first.facts
        comparison["second"] |= second.facts
        comparisons.append(comparison)
    return {"runs": [first.run_id, second.run_id], "each_best": False, "unpaired": {}, "comparisons": comparisons}


def _read_run(store: Store, run_id: str) -> _EvaluatedRun:
    uris = finished_evaluations(store, run_id)
    manifest = store.get_json(f"{store.key(uris[0])}/manifest.json")
    dataset = open_dataset(store, manifest["dataset"])
    families = families_of([read_model(store, uri) for uri in uris], dataset.table())
    return _EvaluatedRun(run_id, families, dataset, split_digest(store, manifest["split"]))


def _cells(family: Family) -> set[str]:
    return set(family.models[0].predictions["cell_id"])


def _check_pixels(store: Store, ours: _EvaluatedRun, theirs: _EvaluatedRun) -> None:
    """Refuse cells that share only their ids: different data sets may number their cells alike."""
    # Masking changes pixels: the unmasked parents are compared.
    sources = [run.dataset.manifest["facts"].get("parent") or run.dataset.uri for run in (ours, theirs)]
    if sources[0] == sources[1]:
        return
    tables = [open_dataset(store, uri).table(["cell_id", "sha256"]).set_index("cell_id")["sha256"] for uri in sources]
    evaluated = sorted(_cells(ours.families[0]) & _cells(theirs.families[0]))
    one, other = (table.reindex(evaluated) for table in tables)
    if not one.equals(other):
        different = int((one != other).sum())
        raise _different_cells(ours, theirs, f"{different:,} of {len(evaluated):,} with the same id are other images")


def _different_cells(first: _EvaluatedRun, second: _EvaluatedRun, how: str) -> UserError:
    return UserError(
        f"runs {first.run_id} and {second.run_id}: were evaluated on different cells ({how}), so they cannot be compared; "
        "run both on the same data with the same data.split"
    )
