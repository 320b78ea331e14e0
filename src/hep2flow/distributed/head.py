"""Process of a run's shared Ray cluster: ``python -m hep2flow.distributed.head ADDRESS_FILE``.

Writes the cluster's address to the file once it is up, and ends when its standard input closes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray

from hep2flow.distributed.cluster import local_options


def main(address_file: Path) -> None:
    """Serve until the parent is gone."""
    context = ray.init(address="local", include_dashboard=False, log_to_driver=False, **local_options())
    temporary = address_file.with_suffix(".tmp")
    temporary.write_text(context.address_info["gcs_address"])
    temporary.replace(address_file)
    sys.stdin.buffer.read()
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
