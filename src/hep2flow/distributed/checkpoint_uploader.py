"""States that a training can resume from, in the store: uploaded while the next epoch trains, downloaded to resume."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from hep2flow.store.errors import DamagedError, NotThereError
from hep2flow.store.outage import Log
from hep2flow.store.s3 import Store

if TYPE_CHECKING:
    from hep2flow.training.checkpoint import CheckpointFiles


class SavedState(BaseModel, extra="forbid"):
    """One resumable state."""

    epoch: int  # the last complete one
    updates: int  # optimizer steps done
    files: dict[str, str]  # name of a file in the training's folder -> key in the store


class CheckpointUploader:
    """Writes and uploads one checkpoint at a time in a thread of its own."""

    def __init__(self, store: Store, prefix: str, keep: int, saved: SavedState | None) -> None:
        """``prefix`` is the training's in the store, ``keep`` the number of states that stay there, at least 1."""
        self.saved = saved  # the latest state in the store
        self._store, self._prefix, self._keep = store, prefix, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-uploader")
        self._pending: Future[SavedState | None] | None = None

    def upload(self, files: CheckpointFiles) -> None:
        """Wait for the checkpoint before, then write this one, if deferred in the thread, and upload it if resumable.

        Raises:
            Exception: What writing or uploading the checkpoint before raised.
        """
        self.wait()
        if not files.deferred:
            files.write()
        self._pending = self._thread.submit(self._upload, files)

    def wait(self) -> None:
        """Wait until the last checkpoint is in the store; raises what writing or uploading it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self.saved = pending.result()

    def _upload(self, files: CheckpointFiles) -> SavedState | None:
        if files.deferred:
            files.write()
        return upload_state(self._store, self._prefix, files, self.saved, self._keep) if files.resumable else self.saved


def upload_state(store: Store, prefix: str, files: CheckpointFiles, before: SavedState | None, keep: int) -> SavedState:
    """Upload the changed files, list them as the latest state, then delete the oldest states.

    Readers see the previous state or this one, never a mixture. Unchanged files are those of ``before``, the state that
    was uploaded or downloaded last; ``keep`` states stay, at least 1.
    """
    keys = dict(before.files) if before is not None else {}
    for name in files.changed:
        keys[name] = f"{prefix}/resume/{files.updates:08d}-{files.epoch:05d}-{name}"
        store.put_file(files.folder / name, keys[name])
    saved = SavedState(epoch=files.epoch, updates=files.updates, files=keys)
    listed = _list_states(store, prefix)
    # A listed state that is later than the one before turned out to be damaged: never resume from it.
    valid = [] if before is None else [state for state in listed if state.updates <= before.updates]
    kept = [saved, *valid][:keep]
    store.put_json(f"{prefix}/resume/states.json", {"states": [state.model_dump(mode="json") for state in kept]})
    used = {key for state in kept for key in state.files.values()}
    store.delete({key for state in listed for key in state.files.values()} - used)
    return saved


def download_state(store: Store, prefix: str, folder: Path, log: Log) -> SavedState | None:
    """Download the files of the latest intact state into ``folder``; None if there is none. Damaged states are logged."""
    for state in _list_states(store, prefix):
        try:
            for name, key in state.files.items():
                store.get_file(key, folder / name)
        except (DamagedError, NotThereError) as error:
            log(f"the state after update {state.updates} is damaged ({error}); the one before it is used")
            for name in state.files:
                (folder / name).unlink(missing_ok=True)
        else:
            return state
    return None


def delete_states(store: Store, prefix: str) -> None:
    """Delete all states of a training that is done."""
    store.delete_folder(f"{prefix}/resume")


def _list_states(store: Store, prefix: str) -> list[SavedState]:
    """The states in the store, the latest first."""
    found = store.find_json(f"{prefix}/resume/states.json")
    return [] if found is None else [SavedState.model_validate(state) for state in found["states"]]
