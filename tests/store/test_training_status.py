"""The notes beside a running training."""

from __future__ import annotations

from hep2flow.store.s3 import Store
from hep2flow.store.training_status import Live


def test_notes_reach_the_other_side_and_a_new_attempt_forgets_what_was_refused(store: Store) -> None:
    worker, driver = Live(store, "trainings/k"), Live(store, "trainings/k")
    assert (driver.refusal(), driver.progress(), driver.asked_to_leave(), driver.notices()) == (None, None, False, [])
    worker.put_progress({"epoch": 3})
    worker.notice("goes on after epoch 2")
    worker.notice("the store is back")
    driver.ask_to_leave()
    worker.refuse("train.batch_size: too large")
    assert driver.progress() == {"epoch": 3}
    assert [note["text"] for note in driver.notices()] == ["goes on after epoch 2", "the store is back"]
    assert [note["text"] for note in driver.notices(after=1)] == ["the store is back"]
    assert worker.asked_to_leave()
    assert driver.refusal() == "train.batch_size: too large"
    driver.begin()
    assert (driver.refusal(), worker.asked_to_leave()) == (None, False)
    assert len(driver.notices()) == 2
    driver.end()
    assert list(store.list("trainings")) == []
