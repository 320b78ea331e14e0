"""Process of a run's shared Ray cluster: ``python -m hep2flow.distributed.ray_head ADDRESS_FILE``.

Writes the cluster's address to the file once it is up, and ends when its standard input closes.
"""

import sys
from pathlib import Path

import ray

OBJECT_STORE_BYTES = 256 * 2**20  # small: cells travel through S3


def main(address_file: Path) -> None:
    """Serve until the parent process ends."""
    quiet = {"include_dashboard": False, "log_to_driver": False}
    context = ray.init(address="local", object_store_memory=OBJECT_STORE_BYTES, **quiet)
    temporary = address_file.with_suffix(".tmp")
    temporary.write_text(context.address_info["gcs_address"])
    temporary.replace(address_file)
    sys.stdin.buffer.read()
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
