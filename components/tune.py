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
) -> NamedTuple("Tuned", [("best", str), ("sweep", str), ("judgement", str)]):  # type: ignore[valid-type]
    """Sweep one recipe through Ray Tune, and judge what it chose; returns the best recipe, complete, and where both lie.

    0 stands for what is not given: hours and concurrency without a limit, no judging.
    """
    from typing import NamedTuple

    from hep2flow.cluster.step import step
    from hep2flow.recipe import read_recipe
    from hep2flow.stages.judge import judge as judge_stage
    from hep2flow.stages.tune import tune as stage

    class Tuned(NamedTuple):
        best: str
        sweep: str
        judgement: str

    read = read_recipe(recipe)
    with step(store, run_id, "tune", read.name) as (opened, record):
        result = stage(
            opened,
            read,
            dataset,
            split,
            trials,
            concurrency=concurrency or None,
            hours=hours or None,
            earlier=earlier,
            announce=record.announce,
        )
        judgement = judge_stage(opened, result.uri, judge, record.announce) if judge else None
        if judgement is not None:
            result.summary |= {"judgement": judgement.summary, "judgement_uri": judgement.uri}
        record.take(result)
        best = opened.get_bytes(f"{opened.key(result.uri)}/best.yaml").decode()
    return Tuned(best, result.uri, "" if judgement is None else judgement.uri)
