"""What the tests of finished runs share: one run, trained once."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hep2flow.distributed.ray_cluster import connected
from hep2flow.recipe import Recipe
from hep2flow.sources.synthetic import write_twin
from hep2flow.stages.evaluate import evaluate
from hep2flow.stages.ingest import ingest
from hep2flow.stages.mask import mask
from hep2flow.stages.split import split
from hep2flow.stages.train import train
from hep2flow.store import embedded_server
from hep2flow.store.address import StoreAddress
from hep2flow.store.open_store import open_store
from hep2flow.store.runs import RunRecord, finish_run, start_run
from hep2flow.store.s3 import Store
from hep2flow.store.stage_recorder import running_stage
from tests.stages.test_train import tiny

RUN = "first"


@dataclass(frozen=True)
class Finished:
    """A finished run of one tiny network on masked cells of the synthetic twin.

    cells:  folder of the twin; dataset: URI before masking, masked: after it
    """

    address: StoreAddress
    environment: dict[str, str]
    recipe: Recipe
    cells: Path
    dataset: str
    masked: str
    split: str
    training: str
    evaluation: str


@pytest.fixture(scope="module")
def ray_cluster(store_home: Path) -> Iterator[None]:
    """A local Ray cluster for one module. Its workers inherit where the store is; later modules do not."""
    before = dict(os.environ)
    os.environ.update(embedded_server.ensure_running().environment())
    with connected():
        yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def _finished(store_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    before = dict(os.environ)
    environment = {**embedded_server.ensure_running().environment(), "HEP2FLOW_PREFIX": f"test-{secrets.token_hex(6)}"}
    os.environ.update(environment)
    cells = tmp_path_factory.mktemp("finished") / "twin"
    write_twin(cells, seed=0, specimens=12)
    recipe, store = tiny("train.max_updates=30"), open_store()
    start_run(store, RunRecord(run_id=RUN, recipes={recipe.name: recipe.model_dump(mode="json")}))
    with connected():
        uris: list[str] = []
        for stage, model, work in (
            ("ingest", None, lambda: ingest(store, str(cells))),
            ("mask", None, lambda: mask(store, uris[0])),
            ("split", None, lambda: split(store, uris[1], recipe.data.split)),
            ("train", recipe.name, lambda: train(store, recipe, uris[1], uris[2])),
            ("evaluate", recipe.name, lambda: evaluate(store, recipe, uris[3], uris[1], uris[2])),
        ):
            with running_stage(store, RUN, stage, model) as record:
                record.set_result(work())
            uris.append(record.result["uri"])
    finish_run(store, RUN, "succeeded")
    os.environ.clear()
    os.environ.update(before)
    return Finished(store.address, environment, recipe, cells, *uris)


@pytest.fixture
def finished(_finished: Finished) -> Finished:
    """The finished run, and the environment in which commands find it."""
    os.environ.update(_finished.environment)
    return _finished


@pytest.fixture
def finished_store(finished: Finished) -> Store:
    """The store of the finished run."""
    return open_store()
