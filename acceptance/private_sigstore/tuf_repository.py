"""A TUF repository with one target, served over HTTP; it can expire, roll back and rotate."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from acceptance.private_sigstore.service import Service

ROLES = ("timestamp", "snapshot", "targets")


class TufRepository(Service):
    """Files below ``directory``, one key for each role, served on a loopback port."""

    def __init__(self, directory: Path, target: bytes, name: str = "trusted_root.json") -> None:
        self.directory = directory
        self.name = name
        self.requests: list[str] = []
        self.signers = {role: CryptoSigner.generate_ecdsa() for role in ("root", *ROLES)}
        self.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
        self.version = 0
        (directory / "targets").mkdir(parents=True)
        self._roots: list[bytes] = []
        self.rotate()
        self.publish(target)
        owner = self

        class Handler(SimpleHTTPRequestHandler):
            def log_request(self, *_: Any) -> None:
                owner.requests.append(self.path)

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

        super().__init__(partial(Handler, directory=str(directory)))

    @property
    def first_root(self) -> bytes:
        """The root metadata to hand to clients."""
        return self._roots[0]

    def rotate(self, *roles: str) -> None:
        """A new root version with new keys for ``roles``, signed by old and new root keys."""
        old = [self.signers["root"]] if self._roots else []
        for role in roles:
            self.signers[role] = CryptoSigner.generate_ecdsa()
        version = len(self._roots) + 1
        root = Root(version=version, expires=self.expires + timedelta(days=365))
        for role, signer in self.signers.items():
            root.add_key(signer.public_key, role)
        raw = self._signed(root, [*old, self.signers["root"]])
        self._roots.append(raw)
        (self.directory / f"{version}.root.json").write_bytes(raw)

    def publish(self, target: bytes, *, version: int | None = None) -> None:
        """Serve ``target`` with fresh metadata of the next version, or of the given one."""
        self.version = version or self.version + 1
        number, expires = self.version, self.expires
        info = TargetFile.from_data(self.name, target)
        targets = Targets(version=number, expires=expires, targets={self.name: info})
        snapshot = Snapshot(
            version=number, expires=expires, meta={"targets.json": MetaFile(version=number)}
        )
        timestamp = Timestamp(
            version=number, expires=expires, snapshot_meta=MetaFile(version=number)
        )
        place = self.directory
        (place / "targets" / f"{info.hashes['sha256']}.{self.name}").write_bytes(target)
        (place / f"{number}.targets.json").write_bytes(
            self._signed(targets, [self.signers["targets"]])
        )
        (place / f"{number}.snapshot.json").write_bytes(
            self._signed(snapshot, [self.signers["snapshot"]])
        )
        (place / "timestamp.json").write_bytes(self._signed(timestamp, [self.signers["timestamp"]]))

    @staticmethod
    def _signed(content: Any, signers: Iterable[CryptoSigner]) -> bytes:
        metadata = Metadata(content)
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()
