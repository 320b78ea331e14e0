"""Kubernetes settings of a task: store credentials, nodes, resources, deadline, and protection from eviction.

KFP's local runner ignores all of them.
"""

from typing import Any

from kfp import dsl, kubernetes

# Keys of the Secret -> boto3's variables. KFP takes the Secret's name from a parameter, but its keys only from here;
# `hep2flow submit` replaces them in the compiled pipeline.
SECRET_KEYS = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
USER = 1000  # of the images
HOUR = 3600
# A step that watches a training for hours costs little: autoscalers are to leave its node alone.
NOT_EVICTED = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}


def place(task: dsl.PipelineTask, nodes: dict[str, Any], cpu: str, memory: str, hours: int) -> dsl.PipelineTask:
    """Set where a task may run, and with what.

    No retries are set: with KFP 2.17 they never repeat a step that failed, only a pod that was lost, which its defaults do
    at every level of the pipeline. KFP's cache is off: a step finds cached results in the store itself.

    Args:
        task: The task.
        nodes: The pipeline's parameters ``store_secret``, ``node_selector`` and ``tolerations``.
        cpu: Request, without a limit: a training in the step itself uses what the node has.
        memory: Likewise.
        hours: Deadline; the RayJob that it watches has its own, shorter one.
    """
    # Optional: where the service account has access to the store itself there is no Secret.
    kubernetes.use_secret_as_env(task, nodes["store_secret"], SECRET_KEYS, optional=True)
    kubernetes.add_node_selector_json(task, nodes["node_selector"])
    kubernetes.add_toleration_json(task, nodes["tolerations"])
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.set_timeout(task, hours * HOUR)
    for key, value in NOT_EVICTED.items():
        kubernetes.add_pod_annotation(task, key, value)
    task.set_cpu_request(cpu)
    task.set_memory_request(memory)
    task.set_caching_options(False)
    return task
