"""A run that did not succeed, as its own record tells it."""

from __future__ import annotations

from hep2flow.errors import UserError
from hep2flow.store.runs import RunView


class RunFailedError(Exception):
    """A run ended by a defect of ours; the message says where its whole story is."""


def failure(view: RunView, story: str) -> Exception:
    """Why a run did not succeed, as its failed stage told it; story: where all of it can be read."""
    failed = [record for record in view.stages if record.status == "failed"]
    for record in failed:
        if record.mendable:
            return UserError(str(record.error))
    what = f"{failed[0].stage}: {failed[0].error}" if failed else f"status {view.status}"
    return RunFailedError(f"run {view.run.run_id} failed, {what}; the whole story is in {story}")
