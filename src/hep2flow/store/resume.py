"""What an interrupted training goes on from: its files of the latest epoch, and a pointer to them, written last."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hep2flow.store.faults import NotThereError
from hep2flow.store.s3 import Store


class Latest(BaseModel):
    """``trainings/{key}/resume/latest.json``: name of a file in the training's folder -> key in the store."""

    model_config = ConfigDict(extra="forbid")

    epoch: int
    files: dict[str, str]


def save(store: Store, prefix: str, folder: Path, epoch: int, fresh: list[str]) -> None:
    """Put the files that are new since the last epoch into the store, then point to them, then drop older ones.

    prefix: of the training; fresh: names of the files in ``folder`` that changed, the others stay as they are there
    A reader finds the epoch before or this one, never a mixture.
    """
    root = f"{prefix}/resume"
    before = _latest(store, root)
    files = dict(before.files) if before is not None else {}
    for name in fresh:
        files[name] = f"{root}/{epoch:05d}-{name}"
        store.put_file(folder / name, files[name])
    store.put_json(f"{root}/latest.json", Latest(epoch=epoch, files=files).model_dump(mode="json"))
    if before is not None:
        store.delete(set(before.files.values()) - set(files.values()))


def load(store: Store, prefix: str, folder: Path) -> int:
    """Fetch the files of the latest epoch into ``folder``; its number, 0 where there is none."""
    latest = _latest(store, f"{prefix}/resume")
    if latest is None:
        return 0
    for name, key in latest.files.items():
        store.get_file(key, folder / name)
    return latest.epoch


def drop(store: Store, prefix: str) -> None:
    """Forget it: the training is done."""
    store.delete_folder(f"{prefix}/resume")


def _latest(store: Store, root: str) -> Latest | None:
    try:
        return Latest.model_validate(store.get_json(f"{root}/latest.json"))
    except NotThereError:
        return None
