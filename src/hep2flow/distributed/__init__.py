"""Ray Train, Tune and Data around the method: workers, restarts, sweeps, the local cluster.

Ray listens on all interfaces and runs any code it is sent, so a local cluster needs a token. Ray reads the token when it
is imported, so it is set here, before any module of this package imports Ray. Child processes inherit it.
"""

import os
import secrets
import sys

if not os.environ.get("RAY_ADDRESS") and "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
