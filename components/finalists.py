"""Finalists as a component."""

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def finalists(
    tuned: list,  # type: ignore[type-arg]
    seeds: int,
    beside: list,  # type: ignore[type-arg]
) -> list:  # type: ignore[type-arg]
    """The recipes that are trained in full after a sweep, complete; ``beside`` are trained as they are."""
    from hep2flow.cluster.step import mendable
    from hep2flow.stages.finalists import finalists as stage

    with mendable():
        return stage(tuned, seeds, beside)
