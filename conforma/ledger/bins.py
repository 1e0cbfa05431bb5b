"""A hash bin: the targets whose paths begin, hashed, with its prefix.

It is kept as JSON values. Reading and signing one with some forty entries is
what a commit does most, and objects for the entries would cost more than the
signature.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from tuf.api.metadata import Targets

from conforma.ledger import rendering

_HASH: Final = re.compile(r"[0-9a-f]{64}")


class Entry(Struct, frozen=True):
    """One target as its bin describes it; ``length`` in bytes."""

    path: str
    length: int
    sha256: str
    custom: Mapping[str, Any]

    @property
    def value(self) -> dict[str, Any]:
        """The entry as metadata holds it (TUF 4.5)."""
        return {"custom": self.custom, "hashes": {"sha256": self.sha256}, "length": self.length}


class Bin(Struct, frozen=True):
    """One version of a bin; ``targets`` are the entries as metadata holds them."""

    version: int
    expires: datetime
    targets: Mapping[str, Mapping[str, Any]]

    @classmethod
    def parse(cls, raw: bytes, top: Targets, role: str, what: str) -> Bin:
        """Read and verify a bin. Raises ``LedgerUnverified`` naming ``what``."""
        body = rendering.verified(raw, top, role, what)
        try:
            version, expires = rendering.common(body, "targets")
            targets = body["targets"]
            for path, value in targets.items():
                _checked(path, value)
        except (ValueError, KeyError, TypeError, AttributeError) as cause:
            raise rendering.damaged(what, cause) from cause
        return cls(version, expires, targets)

    def changed(self, entries: Mapping[str, Entry], expires: datetime) -> Bin:
        """The next version, with these entries new or replaced."""
        values = {path: entry.value for path, entry in entries.items()}
        return Bin(self.version + 1, expires, {**self.targets, **values})

    def render(self) -> bytes:
        """Canonical JSON, the same bytes that python-tuf signs."""
        return rendering.canonical(
            {
                "_type": "targets",
                "expires": self.expires.strftime(rendering.TEXT),
                "spec_version": rendering.SPEC_VERSION,
                "targets": self.targets,
                "version": self.version,
            }
        )

    def entries(self) -> Iterator[Entry]:
        """All targets in it."""
        for path, value in self.targets.items():
            custom = value.get("custom")
            yield Entry(
                path,
                value["length"],
                value["hashes"]["sha256"],
                custom if isinstance(custom, dict) else {},
            )


def _checked(path: str, value: Mapping[str, Any]) -> None:
    if type(value["length"]) is not int or value["length"] < 0:
        raise ValueError(f"{path}: {value['length']!r} is no length")
    if not _HASH.fullmatch(value["hashes"]["sha256"]):
        raise ValueError(f"{path}: {value['hashes']['sha256']!r} is no SHA-256")
