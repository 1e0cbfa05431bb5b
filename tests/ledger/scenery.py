"""A ledger to publish to, and what tests need of its parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from securesystemslib.signer import Signer

from conforma.cache.fs import Step, no_step
from conforma.ledger import keys
from conforma.ledger.commit import Committer
from conforma.ledger.config import Config
from conforma.ledger.history import Record
from conforma.ledger.initialize import initialize
from conforma.ledger.ledger import Ledger
from conforma.ledger.operation import Numbering, Operation
from conforma.ledger.publisher import Publisher


@dataclass
class Place:
    """A ledger in a directory, with its keys beside it."""

    base: Path

    @property
    def directory(self) -> Path:
        return self.base / "ledger"

    @property
    def online(self) -> str:
        return str(self.base / "keys/online.pem")

    def make(self, bins: int = 4, **settings: Any) -> Place:
        config = replace(Config().with_bins(bins), **settings)
        initialize(self.directory, self.base / "keys", config)
        return self

    def open(self, before: Step = no_step, parallel: int = 2) -> Ledger:
        return Ledger(self.directory, before=before, parallel=parallel)

    def signer(self, ledger: Ledger) -> Signer:
        return keys.online(self.online, ledger.state.root)

    def publisher(self, ledger: Ledger, signer: Signer | None = None) -> Publisher:
        return Publisher(ledger, signer or self.signer(ledger))

    def committer(self, ledger: Ledger, signer: Signer | None = None, **more: Any) -> Committer:
        return Committer(
            ledger.storage,
            ledger.state,
            ledger.history,
            ledger.inbox,
            signer or self.signer(ledger),
            **more,
        )

    def files(self, *parts: str) -> list[str]:
        return sorted(path.name for path in self.directory.joinpath(*parts).iterdir())

    def records(self) -> list[Record]:
        """All commits that the timestamp leads back to, oldest first, read from the files."""
        found: list[Record] = []
        version, claim = self.timestamp()["version"], self.timestamp()["commit"]["claim"]
        while claim:
            name = self.directory / f"work/commits/{version:010d}.{claim}.json"
            found.append(Record.parse(name.read_bytes()))
            version, claim = version - 1, found[-1].previous
        return found[::-1]

    def timestamp(self) -> dict[str, Any]:
        text = (self.directory / "metadata/timestamp.json").read_text()
        signed: dict[str, Any] = json.loads(text)["signed"]
        return signed


def queue(ledger: Ledger, numbering: Numbering, path: str, content: bytes) -> Operation:
    """Store content and queue the operation that publishes it."""
    length, sha256 = ledger.inbox.store(path, content)
    operation = Operation(numbering.next(), path=path, length=length, sha256=sha256)
    ledger.inbox.drop(operation)
    return operation


class WatchedSigner(Signer):
    """The online key, telling a test about each signature before it is made."""

    def __init__(self, signer: Signer, told: Callable[[str], None]) -> None:
        self._signer = signer
        self._told = told

    @property
    def public_key(self) -> Any:
        return self._signer.public_key

    @classmethod
    def from_priv_key_uri(cls, *_: Any, **__: Any) -> Signer:
        raise NotImplementedError

    def sign(self, payload: bytes) -> Any:
        self._told(json.loads(payload)["_type"])
        return self._signer.sign(payload)
