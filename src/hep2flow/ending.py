"""How a process of ours ends: without a last search for garbage among all that it has imported."""

import atexit
import gc


def skip_last_collection() -> None:
    """Once this process ends, Python looks for no more unreachable cycles: of half a second that a step takes, a tenth.

    What has to be done at the end is done all the same: functions registered for it, and open files, are not garbage.
    """
    atexit.register(gc.freeze)
