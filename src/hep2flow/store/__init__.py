"""Object storage: where data sets, splits, trainings and runs lie; here what most stages need of it."""

from hep2flow.store import layout
from hep2flow.store.datasets import Dataset, open_dataset, publish_dataset
from hep2flow.store.outage import Log, log_to_stderr
from hep2flow.store.publish import find_published
from hep2flow.store.s3 import Store

__all__ = ["Dataset", "Log", "Store", "find_published", "layout", "log_to_stderr", "open_dataset", "publish_dataset"]
