"""A training on three machines (Ray's own simulated ones): one is lost, and one comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hep2flow.distributed.ray_cluster import RAY_ENVIRONMENT

from .test_interruptions import Laboratory

EPOCHS = 90
OBJECT_STORE_BYTES = 100 * 2**20


@pytest.fixture
def laboratory(tmp_path: Path, own_server: None) -> Laboratory:
    return Laboratory(tmp_path, EPOCHS, "resources.workers.min=1", "resources.workers.max=3")


@pytest.fixture
def machines(laboratory: Laboratory) -> Iterator[Any]:
    """Ray's Cluster of a head and two more machines with one CPU each; they inherit where the store is."""
    os.environ.update(RAY_ENVIRONMENT)
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=size)
    for _ in range(2):
        cluster.add_node(**size)
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_a_training_goes_on_with_fewer_workers_and_grows_again(laboratory: Laboratory, machines: Any) -> None:
    laboratory.command += ["--address", machines.address]
    process = laboratory.start()
    laboratory.wait_for_epoch(3, process)
    machines.remove_node(sorted(machines.worker_nodes, key=str)[0], allow_graceful=False)
    laboratory.wait_for_notice("resuming after epoch", process)
    machines.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
    result = laboratory.finish(process)
    outcome = laboratory.outcome(result)
    assert [line["epoch"] for line in outcome["history"]] == list(range(1, EPOCHS + 1))
    timing = laboratory.store.get_json(f"{laboratory.store.key(result['uri'])}/manifest.json")["timing"]
    notices = " ".join(timing["notices"])
    assert "a machine of this training is lost" in notices
    assert "capacity for 3 workers now" in notices
    assert "stopped at update" in notices
    assert timing["workers"] == 3
