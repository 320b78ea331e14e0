"""What a step of a pipeline does: what is specified, as a RayJob, which it follows to its end.

A pod runs this text with ``python3 -c``: its image holds hep2flow, and none of its tests. Arguments: the specification and
the parameter ``cluster``, both JSON.
"""

import json
import sys

from hep2flow.execution.dispatch import perform_on
from hep2flow.execution.job_spec import Specification
from hep2flow.execution.kubeflow.pipeline_step import step
from hep2flow.store.s3 import open_store

said = Specification.model_validate_json(sys.argv[1])
with step(open_store().address.model_dump(), said.run_id, "", said.stage, said.recipe.name) as here:
    here.record.take(perform_on("rayjob", json.loads(sys.argv[2]), here.store, said, here.record))
