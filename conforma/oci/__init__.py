"""What an image is and how it is fetched.

Values first (``digest``, ``reference``, ``manifest``), then the one way to a
registry (``registry``) over the one way to a socket (``transport``).
"""

import sys

# httpx imports its command line, and with it rich and pygments, whenever they
# are installed: a third of its start-up time, for nothing.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
