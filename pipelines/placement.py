"""What a task asks of Kubernetes: the right to enter the store, nodes, resources, time, and another try.

On a machine of one's own none of it applies: the local runner takes no notice, and retries are left out there.
"""

from typing import Any

from kfp import dsl, kubernetes

# Keys of the Secret -> what boto3 reads. Kubeflow takes the Secret's name from a parameter, its keys only from here;
# `hep2flow submit` writes others in their place.
SECRET_KEYS = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
USER = 1000  # of the images
RETRIES = 2
HOUR = 3600


def place(
    task: dsl.PipelineTask, nodes: dict[str, Any], cpu: str, memory: str, hours: int, retries: int = RETRIES
) -> dsl.PipelineTask:
    """Say where a task may run, and on what.

    nodes: the pipeline's parameters ``store_secret``, ``node_selector`` and ``tolerations``
    cpu, memory: what it asks for, and no limit: a training in the step itself takes what the node has
    hours:   after which it is given up; the job that it follows has its own, shorter deadline
    """
    # A Secret that is not there is none: where the service account has the right itself, that is as it should be.
    kubernetes.use_secret_as_env(task, nodes["store_secret"], SECRET_KEYS, optional=True)
    kubernetes.add_node_selector_json(task, nodes["node_selector"])
    kubernetes.add_toleration_json(task, nodes["tolerations"])
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.set_timeout(task, hours * HOUR)
    task.set_cpu_request(cpu)
    task.set_memory_request(memory)
    if retries:
        task.set_retry(retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s")
    return task
