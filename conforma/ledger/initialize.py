"""A new ledger: keys, settings, and version 1 of every role."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Delegations, Root, SuccinctRoles, Targets

from conforma.errors import InputError
from conforma.ledger import keys, rendering
from conforma.ledger.config import (
    BIN_PREFIX,
    CONFIG_FILE,
    DIRECTORIES,
    METADATA,
    TIMESTAMP,
    Config,
    metadata_name,
)
from conforma.ledger.state import SnapshotBody, timestamp_body
from conforma.ledger.storage import LocalDirectory


def initialize(
    directory: Path,
    key_directory: Path,
    config: Config,
    *,
    online: str = "",
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Make a ledger in ``directory`` and its keys in ``key_directory``.

    ``online`` names an existing private key to use instead of a new one. Raises
    ``InputError`` rather than touch anything that exists, ``LedgerError``.
    """
    config = config.checked()
    if directory.exists() and any(directory.iterdir()):
        raise InputError(f"{directory}: is not empty", hint="name a new directory for the ledger")
    keys.check_outside(key_directory, directory)
    signer: Signer = (
        keys.load(online, environ) if online else keys.generate(key_directory, keys.ONLINE, environ)
    )
    root_signer, targets_signer = (
        keys.generate(key_directory, name, environ) for name in keys.OFFLINE
    )
    now = rendering.now()
    offline = now + timedelta(seconds=config.offline_lifetime)
    root = Root(expires=offline, consistent_snapshot=True, spec_version=rendering.SPEC_VERSION)
    root.add_key(root_signer.public_key, "root")
    root.add_key(targets_signer.public_key, "targets")
    for role in ("snapshot", "timestamp"):
        root.add_key(signer.public_key, role)
    bins = SuccinctRoles([signer.public_key.keyid], 1, config.bits, BIN_PREFIX)
    targets = Targets(
        expires=offline,
        spec_version=rendering.SPEC_VERSION,
        delegations=Delegations({signer.public_key.keyid: signer.public_key}, succinct_roles=bins),
    )
    files = {
        metadata_name("root", 1): rendering.signed(root, [root_signer]),
        metadata_name("targets", 1): rendering.signed(targets, [targets_signer]),
    }
    versions = {"targets": 1}
    for role in bins.get_roles():
        empty = Targets(expires=now + config.lifetime("bins"), spec_version=rendering.SPEC_VERSION)
        files[metadata_name(role, 1)] = rendering.signed(empty, [signer])
        versions[role] = 1
    body = SnapshotBody(versions).render(1, now + config.lifetime("snapshot"))
    snapshot = rendering.with_signatures(body, [rendering.sign(signer, body)])
    files[metadata_name("snapshot", 1)] = snapshot
    _write(directory, config, files, _timestamp(snapshot, now, config, signer))


def _timestamp(snapshot: bytes, now: datetime, config: Config, signer: Signer) -> bytes:
    body = timestamp_body(
        1,
        now + config.lifetime("timestamp"),
        snapshot,
        {"claim": "", "time": int(now.astimezone(UTC).timestamp())},
    )
    return rendering.with_signatures(body, [rendering.sign(signer, body)])


def _write(directory: Path, config: Config, files: Mapping[str, bytes], timestamp: bytes) -> None:
    storage = LocalDirectory(directory, shared=config.shared)
    try:
        storage.make_directories(["", *DIRECTORIES])
        storage.create_all(files)
        storage.put(TIMESTAMP, timestamp)
        storage.sync([METADATA])
        # Last: a directory without settings is no ledger yet.
        storage.put(CONFIG_FILE, config.render())
        storage.sync([""])
    finally:
        storage.close()
