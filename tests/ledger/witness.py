"""An independent reader: nothing here is the ledger's code, only python-tuf and the files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp


def current(directory: Path, root: bytes) -> tuple[int, dict[str, bytes]]:
    """The version and all targets with their content; raises if anything does not verify.

    The timestamp is read once; everything else follows from it.
    """
    trusted: Metadata[Root] = Metadata.from_bytes(root)
    metadata = directory / "metadata"
    timestamp: Metadata[Timestamp] = Metadata.from_bytes((metadata / "timestamp.json").read_bytes())
    _verify(trusted.signed, "timestamp", timestamp)
    version = timestamp.signed.snapshot_meta.version
    raw = (metadata / f"{version}.snapshot.json").read_bytes()
    timestamp.signed.snapshot_meta.verify_length_and_hashes(raw)
    snapshot: Metadata[Snapshot] = Metadata.from_bytes(raw)
    _verify(trusted.signed, "snapshot", snapshot)
    assert snapshot.signed.version == version == timestamp.signed.version
    top: Metadata[Targets] = Metadata.from_bytes(
        (metadata / f"{snapshot.signed.meta['targets.json'].version}.targets.json").read_bytes()
    )
    _verify(trusted.signed, "targets", top)
    assert top.signed.delegations is not None
    bins = top.signed.delegations.succinct_roles
    assert bins is not None
    found: dict[str, bytes] = {}
    for role in bins.get_roles():
        number = snapshot.signed.meta[f"{role}.json"].version
        one: Metadata[Targets] = Metadata.from_bytes(
            (metadata / f"{number}.{role}.json").read_bytes()
        )
        _verify(top.signed, role, one)
        assert one.signed.version == number
        for path, target in one.signed.targets.items():
            assert bins.get_role_for_target(path) == role
            parent, _, base = path.rpartition("/")
            name = directory / "targets" / parent / f"{target.hashes['sha256']}.{base}"
            content = name.read_bytes()
            assert hashlib.sha256(content).hexdigest() == target.hashes["sha256"]
            found[path] = content
    return version, found


def _verify(delegator: Any, role: str, metadata: Metadata[Any]) -> None:
    delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
