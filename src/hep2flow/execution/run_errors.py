"""A run that did not succeed, as its own record tells it."""

from __future__ import annotations

from hep2flow.errors import RunFailedError, UserError
from hep2flow.store.layout import stage_name
from hep2flow.store.runs import RunView


def failure(view: RunView, story: str, reason: str = "") -> Exception:
    """Why a run did not succeed, as its failed step told it.

    Args:
        view: Of the run.
        story: Where all of it can be read.
        reason: What else is known; told where no step said anything.
    """
    failed = [record for record in view.stages if record.status == "failed"]
    for record in failed:
        if record.mendable:
            return UserError(str(record.error))
    if failed:
        what = f"{stage_name(failed[0].stage, failed[0].model)}: {failed[0].error}"
    else:
        silent = [name for name, status in view.stage_status.items() if status in ("running", "lost", "interrupted")]
        what = f"{silent[0]}: ended before it was done, as if it had been killed" if silent else "no step told why"
        what += f" ({reason})" if reason else ""
    return RunFailedError(f"run {view.run.run_id} failed, {what}; the whole story is in {story}")
