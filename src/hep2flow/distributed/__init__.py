"""Ray around the method.

Ray listens on all interfaces and runs the code it is sent, so a local cluster of ours wants a token. Ray reads it once,
when it is imported: hence here, before any module of this package imports it. Child processes inherit it.
"""

import os
import secrets
import sys

if not os.environ.get("RAY_ADDRESS") and "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
