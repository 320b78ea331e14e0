"""What a task asks of Kubernetes: the right to enter the store, nodes, resources, time, and to be left alone.

On a machine of one's own none of it applies: the local runner takes no notice.
"""

from typing import Any

from kfp import dsl, kubernetes

# Keys of the Secret -> what boto3 reads. Kubeflow takes the Secret's name from a parameter, its keys only from here;
# `hep2flow submit` writes others in their place.
SECRET_KEYS = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
USER = 1000  # of the images
HOUR = 3600
# A step that follows a training for hours is cheap to keep and dear to move: autoscalers leave its node alone.
NOT_EVICTED = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}


def place(task: dsl.PipelineTask, nodes: dict[str, Any], cpu: str, memory: str, hours: int) -> dsl.PipelineTask:
    """Say where a task may run, and on what.

    Nothing is asked to be tried again: Kubeflow's retries never repeat a step that failed, only a pod that was lost, and
    do that at every level of the pipeline by themselves. Nor may Kubeflow answer a step from its cache: what is there
    already the step itself knows, from the store.

    Args:
        task: The task.
        nodes: The pipeline's parameters ``store_secret``, ``node_selector`` and ``tolerations``.
        cpu: What it asks for, without a limit: a training in the step itself takes what the node has.
        memory: Likewise.
        hours: After which it is given up; the job that it follows has its own, shorter deadline.
    """
    # A Secret that is not there is none: where the service account has the right itself, that is as it should be.
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
