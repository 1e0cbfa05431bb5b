"""Where the cache lives and how careful it is, as one value.

The environment is read here and nowhere else in the package: ``EC_CACHE_DIR``
moves the directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct, field

from conforma.oci.inflate import Limits

Verify = Literal["off", "once", "always"]

GIB: Final = 1 << 30


def default_directory() -> Path:
    """``EC_CACHE_DIR`` if it is set, else ``conforma`` under the user's cache directory."""
    chosen = os.environ.get("EC_CACHE_DIR")
    if chosen:
        # Unlike pathlib's, it leaves a ~name that nobody has as it is.
        return Path(os.path.expanduser(chosen))  # noqa: PTH111
    import platformdirs

    return Path(platformdirs.user_cache_dir("conforma", appauthor=False)) / "layers"


class CacheOptions(Struct, frozen=True):
    """Every choice a user or a test can make about the cache.

    ``max_bytes`` bounds the directory between fills (0: no bound). ``verify``
    says how often content, beyond its size, is checked when an entry is
    opened. ``durable`` syncs blobs before they get their final name.
    ``patience`` is how many seconds another process may hold an entry without
    making progress before we fetch it ourselves. ``grace`` is how many seconds
    an abandoned temporary file is kept, so that its download can be resumed.
    ``strict`` raises ``CacheUnusable`` when an entry cannot be stored, instead
    of serving the bytes without storing them. ``counted`` adds what is read to
    the directory's totals when the cache is closed. ``proof`` hands a layer
    out only for repositories that are known to offer it.
    """

    directory: Path = field(default_factory=default_directory)
    max_bytes: int = 20 * GIB
    verify: Verify = "off"
    durable: bool = True
    patience: float = 60.0
    grace: float = 3600.0
    strict: bool = False
    counted: bool = True
    proof: bool = False
    limits: Limits = field(default_factory=Limits)
