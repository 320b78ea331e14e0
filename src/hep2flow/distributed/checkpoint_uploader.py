"""Uploads each checkpoint while the next epoch trains, and finds the latest whole one again."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from hep2flow.distributed import checkpoint_uploader
from hep2flow.store.s3 import Store

if TYPE_CHECKING:
    from hep2flow.training.checkpoint import Files
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hep2flow.store.errors import DamagedError, NotThereError
from hep2flow.store.outage import Tell


class Sender:
    """Keeps one state at a time, in a thread of its own.

    prefix: of the training; keep: how many states stay in the store
    saved:  the latest state that is there, None where there is none
    """

    def __init__(self, store: Store, prefix: str, keep: int, saved: checkpoint_uploader.Saved | None) -> None:
        self.saved = saved
        self._store, self._prefix, self._keep = store, prefix, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sender")
        self._under_way: Future[checkpoint_uploader.Saved | None] | None = None

    def send(self, files: Files) -> None:
        """Write the files, or begin to, and begin to send them where a training can go on from them; waits for those before.

        Raises what those before met.
        """
        self.wait()
        if not files.later:
            files.write()
        self._under_way = self._thread.submit(self._send, files)

    def wait(self) -> None:
        """Until the last state is in the store; raises what its writing or sending met."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            self.saved = under_way.result()

    def _send(self, files: Files) -> checkpoint_uploader.Saved | None:
        if files.later:
            files.write()
        if not files.goes_on:
            return self.saved
        point = files.epoch, files.updates
        return checkpoint_uploader.save(
            self._store, self._prefix, files.folder, point, files.fresh, self.saved, self._keep
        )


class Saved(BaseModel):
    """One state of a training.

    epoch, updates: how far it had come; the epoch is the last whole one
    files:          name of a file in the training's folder -> key in the store
    """

    model_config = ConfigDict(extra="forbid")

    epoch: int
    updates: int
    files: dict[str, str]


class States(BaseModel):
    """``trainings/{key}/resume/states.json``: the states that are kept, the latest first."""

    model_config = ConfigDict(extra="forbid")

    states: list[Saved] = []


def save(
    store: Store, prefix: str, folder: Path, point: tuple[int, int], fresh: list[str], before: Saved | None, keep: int
) -> Saved:
    """Put the files that are new into the store, then list them as the latest state, then drop the oldest ones.

    prefix: of the training
    point:  last whole epoch, and updates
    fresh:  names of the files in ``folder`` that changed since ``before``, the state that was saved or loaded last
    keep:   how many states stay, at least 1
    A reader finds the state before or this one, never a mixture.
    """
    epoch, updates = point
    files = dict(before.files) if before is not None else {}
    for name in fresh:
        files[name] = f"{_root(prefix)}/{updates:08d}-{epoch:05d}-{name}"
        store.put_file(folder / name, files[name])
    saved = Saved(epoch=epoch, updates=updates, files=files)
    older = _states(store, prefix).states
    # A later state that was there already could not be read: it is not one to come back to.
    good = [] if before is None else [state for state in older if state.updates <= before.updates]
    kept = [saved, *good][:keep]
    store.put_json(f"{_root(prefix)}/states.json", States(states=kept).model_dump(mode="json"))
    named = {key for state in kept for key in state.files.values()}
    store.delete({key for state in older for key in state.files.values()} - named)
    return saved


def load(store: Store, prefix: str, folder: Path, tell: Tell) -> Saved | None:
    """Fetch the files of the latest whole state into ``folder``; None where there is none.

    tell: told of each state that is damaged, for which the one before is taken
    """
    for state in _states(store, prefix).states:
        try:
            for name, key in state.files.items():
                store.get_file(key, folder / name)
        except (DamagedError, NotThereError) as error:
            tell(f"the state after update {state.updates} is of no use ({error}); the one before it is taken")
            for name in state.files:
                (folder / name).unlink(missing_ok=True)
        else:
            return state
    return None


def drop(store: Store, prefix: str) -> None:
    """Forget it: the training is done."""
    store.delete_folder(_root(prefix))


def _root(prefix: str) -> str:
    return f"{prefix}/resume"


def _states(store: Store, prefix: str) -> States:
    try:
        return States.model_validate(store.get_json(f"{_root(prefix)}/states.json"))
    except NotThereError:
        return States()
