"""The status files of a running training."""

from __future__ import annotations

from hep2flow.store.s3 import Store
from hep2flow.store.training_status import TrainingStatus


def test_status_reaches_the_other_side_and_a_new_attempt_withdraws_a_rejection(store: Store) -> None:
    worker, driver = TrainingStatus(store, "trainings/k"), TrainingStatus(store, "trainings/k")
    assert (driver.rejection(), driver.progress(), driver.stop_requested(), driver.notices()) == (None, None, False, [])
    worker.put_progress({"epoch": 3})
    worker.add_notice("resuming after epoch 2")
    worker.add_notice("the store is back")
    driver.request_stop()
    worker.reject("train.batch_size: too large")
    assert driver.progress() == {"epoch": 3}
    assert [note["text"] for note in driver.notices()] == ["resuming after epoch 2", "the store is back"]
    assert [note["text"] for note in driver.notices(after=1)] == ["the store is back"]
    assert worker.stop_requested()
    assert driver.rejection() == "train.batch_size: too large"
    driver.start_attempt()
    assert (driver.rejection(), worker.stop_requested()) == (None, False)
    assert len(driver.notices()) == 2
    driver.clear()
    assert list(store.list_objects("trainings")) == []
