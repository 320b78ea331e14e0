"""Tune as a component."""

from typing import NamedTuple

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.RAY, install_kfp_package=False)
def tune(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    recipe: str,
    dataset: str,
    split: str,
    trials: int,
    hours: float,
    concurrency: int,
    earlier: str,
    judge: int,
    engine: str,
    cluster: dict,  # type: ignore[type-arg]
) -> NamedTuple("Tuned", [("best", str), ("sweep", str), ("judgement", str)]):  # type: ignore[valid-type]
    """Sweep one recipe through Ray Tune, and judge what it chose; returns the best recipe, complete, and where both lie.

    engine, cluster: here or as a RayJob
    0 stands for what is not given: hours and concurrency without a limit, no judging.
    """
    from typing import NamedTuple

    from hep2flow.cluster.engine import perform_on
    from hep2flow.cluster.specification import Specification, Trials
    from hep2flow.cluster.step import step
    from hep2flow.recipe import read_recipe

    class Tuned(NamedTuple):
        best: str
        sweep: str
        judgement: str

    read = read_recipe(recipe)
    with step(store, run_id, "tune", read.name) as (opened, record):
        sweep = Trials(trials=trials, hours=hours, concurrency=concurrency, earlier=earlier, judge=judge)
        asked = Specification(run_id=run_id, recipe=read, dataset=dataset, split=split, sweep=sweep)
        result = perform_on(engine, cluster, opened, asked, record)
        record.take(result)
        best = opened.get_bytes(f"{opened.key(result.uri)}/best.yaml").decode()
    return Tuned(best, result.uri, result.summary.get("judgement_uri", ""))
