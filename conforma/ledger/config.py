"""What a ledger was made with: one file, read by every writer before every commit.

The file has a format number. Whoever reads a newer one stops, because a rule
it does not know may have been added.
"""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict, replace

from conforma.errors import InputError, LedgerError

FORMAT: Final = 1
MOST_BITS: Final = 14
BIN_PREFIX: Final = "bins"


class Config(Struct, frozen=True):
    """Sizes in entries, times in seconds.

    ``bits``: there are ``2**bits`` bins. ``max_batch``: most operations of one
    commit. ``queue_limit``: most operations waiting before new ones are
    refused. ``rest``: pause after a commit, as a share of how long it took.
    ``grace``: age at which superseded files may be collected. ``remember``:
    how long the outcome of an operation is known.
    """

    format: int = FORMAT
    bits: int = 8
    timestamp_lifetime: float = 7 * 86400.0
    snapshot_lifetime: float = 7 * 86400.0
    bins_lifetime: float = 365 * 86400.0
    offline_lifetime: float = 3 * 365 * 86400.0
    max_batch: int = 1000
    queue_limit: int = 10_000
    rest: float = 0.35
    grace: float = 3600.0
    remember: float = 7 * 86400.0
    skew: float = 300.0
    shared: bool = False

    @classmethod
    def parse(cls, raw: bytes, where: str) -> Config:
        """Read the file. Raises ``LedgerError``, above all for a newer format."""
        try:
            document: Any = json.loads(raw)
            found = document["format"]
            if not isinstance(found, int) or found < 1:
                raise ValueError("format is not a positive number")
            if found > FORMAT:
                raise LedgerError(
                    f"{where}: the ledger has format {found}, this version knows up to {FORMAT}",
                    hint="nothing was changed; use the version of conforma that made the ledger, "
                    "or a later one",
                )
            known = set(cls.__struct_fields__)
            return cls(**{key: value for key, value in document.items() if key in known}).checked()
        except (ValueError, KeyError, TypeError, InputError) as cause:
            raise LedgerError(f"{where}: not the settings of a ledger: {cause}") from cause

    def checked(self) -> Config:
        """The settings themselves. Raises ``InputError`` if they cannot be meant."""
        if not 1 <= self.bits <= MOST_BITS:
            raise InputError(f"a ledger has 2 to {1 << MOST_BITS} bins, a power of two")
        lifetimes = (
            self.timestamp_lifetime,
            self.snapshot_lifetime,
            self.bins_lifetime,
            self.offline_lifetime,
        )
        if min(*lifetimes, self.grace, self.remember, self.skew) <= 0 or self.rest < 0:
            raise InputError("lifetimes and times of a ledger are positive")
        if self.max_batch < 1 or self.queue_limit < 1:
            raise InputError("a batch and a queue hold at least one operation")
        return self

    def render(self) -> bytes:
        """The file."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    def with_bins(self, count: int) -> Config:
        """The same with ``count`` bins. Raises ``InputError`` unless a power of two."""
        if count < 2 or count & (count - 1):
            raise InputError(f"--bins: {count} is not a power of two")
        return replace(self, bits=count.bit_length() - 1).checked()

    def lifetime(self, role: str) -> timedelta:
        """How long metadata of a role is good after it was signed."""
        seconds = {"timestamp": self.timestamp_lifetime, "snapshot": self.snapshot_lifetime}
        return timedelta(seconds=seconds.get(role, self.bins_lifetime))


_VERSIONED: Final = re.compile(r"(?P<version>[1-9]\d*)\.(?P<role>[a-z0-9-]+)\.json")
CONFIG_FILE: Final = "ledger.json"
METADATA: Final = "metadata"
TARGETS: Final = "targets"
TIMESTAMP: Final = "metadata/timestamp.json"
INBOX: Final = "work/inbox"
HELD: Final = "work/held"
REFUSED: Final = "work/refused"
CLAIMS: Final = "work/claims"
COMMITS: Final = "work/commits"
DOORBELLS: Final = "work/doorbells"
ASIDE: Final = "work/aside"
RIGHT: Final = "work/commit.lock"
DIRECTORIES: Final = (
    METADATA,
    TARGETS,
    INBOX,
    HELD,
    REFUSED,
    CLAIMS,
    COMMITS,
    DOORBELLS,
    ASIDE,
)


def metadata_name(role: str, version: int) -> str:
    """Where one version of a role's metadata is."""
    return f"{METADATA}/{version}.{role}.json"


def version_and_role(name: str) -> tuple[int, str] | None:
    """What :func:`metadata_name` was given, from a name in its directory; ``None`` for others."""
    match = _VERSIONED.fullmatch(name)
    return None if match is None else (int(match["version"]), match["role"])


def target_name(path: str, sha256: str) -> str:
    """Where the content of a target is, with its hash before the base name (TUF 6.2)."""
    directory, slash, base = path.rpartition("/")
    return f"{TARGETS}/{directory}{slash}{sha256}.{base}"
