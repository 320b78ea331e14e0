"""What a step of a pipeline does: what is specified, as a RayJob, which it follows to its end.

A pod runs this text with ``python3 -c``: its image holds hep2flow, and none of its tests. Arguments: the specification and
the parameter ``cluster``, both JSON.
"""

import json
import sys

from hep2flow.execution.dispatch import run_on_engine
from hep2flow.execution.job_spec import JobSpec
from hep2flow.execution.kubeflow.pipeline_step import step
from hep2flow.store.open_store import open_store

said = JobSpec.model_validate_json(sys.argv[1])
with step(open_store().address.model_dump(), said.run_id, "", said.stage, said.recipe.name) as here:
    here.record.set_result(run_on_engine("rayjob", json.loads(sys.argv[2]), here.store, said, here.record))
