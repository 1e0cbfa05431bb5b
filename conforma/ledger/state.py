"""What the current timestamp stands for: snapshot and bins, verified and remembered.

The base of a commit is what the timestamp names, never the highest number in
the directory. Bins are read when they are touched, and again only if another
writer changed them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import MetaFile, Root, SuccinctRoles, Targets, Timestamp

from conforma.errors import LedgerError, LedgerUnverified
from conforma.ledger import rendering
from conforma.ledger.bins import Bin
from conforma.ledger.config import CONFIG_FILE, TIMESTAMP, Config, metadata_name
from conforma.ledger.storage import Storage

#: Our member of the timestamp; clients ignore members they do not know (TUF 4.1).
COMMIT: Final = "commit"


class SnapshotBody:
    """The signed part of a snapshot, of which one commit changes a few entries.

    Each entry is kept as the bytes it has in canonical JSON, so that the cost
    of a commit hardly depends on how many bins there are.
    """

    def __init__(self, versions: Mapping[str, int]) -> None:
        self.versions = dict(versions)
        self._names = sorted(self.versions)
        self._places = {name: place for place, name in enumerate(self._names)}
        self._entries = [self._entry(name) for name in self._names]

    def changed(self, versions: Mapping[str, int]) -> SnapshotBody:
        """The same with other versions of some roles."""
        other = SnapshotBody.__new__(SnapshotBody)
        other.versions = {**self.versions, **versions}
        other._names, other._places = self._names, self._places
        other._entries = list(self._entries)
        for name in versions:
            other._entries[self._places[name]] = other._entry(name)
        return other

    def render(self, version: int, expires: datetime) -> bytes:
        """Canonical JSON, the same bytes that python-tuf signs."""
        return (
            b'{"_type":"snapshot","expires":"%b","meta":{%b},"spec_version":"%b","version":%d}'
            % (
                expires.strftime(rendering.TEXT).encode(),
                b",".join(self._entries),
                rendering.SPEC_VERSION.encode(),
                version,
            )
        )

    def _entry(self, name: str) -> bytes:
        return b'"%b.json":{"version":%d}' % (name.encode(), self.versions[name])


class Head(Struct, frozen=True):
    """The commit that is published: its version, claim and time (seconds since 1970)."""

    version: int
    claim: str
    time: float
    expires: datetime

    @property
    def fence(self) -> int:
        """The number that later claims must exceed."""
        return int(self.claim.partition("-")[0] or "0")


class State:
    """The published state of a ledger, as one writer knows it. Safe to share between threads."""

    def __init__(
        self,
        storage: Storage,
        where: str,
        root: bytes | None = None,
        newest_root: int | None = None,
    ) -> None:
        """``root`` is the root metadata to trust, by default the first of the ledger itself.

        Later ones are followed up to version ``newest_root``, if it is given.
        """
        self._newest_root = newest_root
        self._storage = storage
        self._where = where
        self._lock = threading.RLock()
        self._raw = b""
        self._glanced = b"", Head(0, "", 0.0, datetime.min)
        self._bins: dict[str, Bin] = {}
        self.config = self.reload_config()
        self.root = self._load_root(root)
        self.head: Head
        self.snapshot: SnapshotBody
        self.snapshot_expires: datetime
        self.targets: Targets
        self.refresh()

    @property
    def bins(self) -> SuccinctRoles:
        """Which paths are in which bin."""
        assert self.targets.delegations is not None
        roles = self.targets.delegations.succinct_roles
        assert roles is not None
        return roles

    def refresh(self) -> Head:
        """Read what is published now. Raises ``LedgerError`` or ``LedgerUnverified``."""
        with self._lock:
            followed = self._follow_root()
            raw = self._read(TIMESTAMP)
            if followed or raw != self._raw:
                self._load(raw)
                self._raw = raw
            return self.head

    def glance(self) -> Head:
        """The commit that is published now, by its timestamp alone; nothing else is read.

        Raises as ``refresh`` does.
        """
        with self._lock:
            raw = self._read(TIMESTAMP)
            if raw == self._raw:
                return self.head
            if raw != self._glanced[0]:
                self._follow_root()
                self._glanced = raw, head_of(self._timestamp(raw))
            return self._glanced[1]

    def reload_config(self) -> Config:
        """Read the settings, which another version may have changed. Raises ``LedgerError``."""
        self.config = Config.parse(self._read(CONFIG_FILE), f"{self._where}/{CONFIG_FILE}")
        return self.config

    def bin(self, role: str) -> Bin:
        """The current content of a bin, verified. Raises ``LedgerUnverified``."""
        version = self.snapshot.versions[role]
        known = self._bins.get(role)
        if known is not None and known.version == version:
            return known
        name = metadata_name(role, version)
        found = Bin.parse(self._read(name), self.targets, role, f"{self._where}/{name}")
        if found.version != version:
            raise LedgerUnverified(f"{self._where}/{name}: holds version {found.version}")
        self._bins[role] = found
        return found

    def advance(
        self,
        timestamp: bytes,
        head: Head,
        snapshot: SnapshotBody,
        snapshot_expires: datetime,
        bins: Mapping[str, Bin],
    ) -> None:
        """Take over what this process has just published."""
        with self._lock:
            self._raw = timestamp
            self.head = head
            self.snapshot = snapshot
            self.snapshot_expires = snapshot_expires
            self._bins.update(bins)

    def _timestamp(self, raw: bytes) -> Timestamp:
        return rendering.parsed(
            raw, Timestamp, self.root, "timestamp", f"{self._where}/{TIMESTAMP}"
        )

    def _load(self, raw: bytes) -> None:
        timestamp = self._timestamp(raw)
        meta = timestamp.snapshot_meta
        name = metadata_name("snapshot", meta.version)
        content = self._read(name)
        try:
            meta.verify_length_and_hashes(content)
        except LengthOrHashMismatchError as cause:
            raise LedgerUnverified(f"{self._where}/{name}: {cause}") from cause
        expires, versions = rendering.parsed_snapshot(content, self.root, f"{self._where}/{name}")
        name = metadata_name("targets", versions["targets"])
        self.targets = rendering.parsed(
            self._read(name), Targets, self.root, "targets", f"{self._where}/{name}"
        )
        self.snapshot = SnapshotBody(versions)
        self.snapshot_expires = expires
        self.head = head_of(timestamp)

    def _load_root(self, raw: bytes | None) -> Root:
        name = metadata_name("root", 1)
        try:
            raw = raw or self._storage.read(name)
        except FileNotFoundError as cause:
            raise LedgerError(
                f"{self._where} is not a ledger: {name} is not there",
                hint=f"make one with conforma ledger init {self._where} --keys DIRECTORY",
            ) from cause
        return rendering.parsed(raw, Root, _own_root(raw), "root", "the trusted root")

    def _follow_root(self) -> bool:
        """Trust later roots that the one before vouches for; whether there was one."""
        began = self.root.version
        while self.root.version != self._newest_root:
            name = metadata_name("root", self.root.version + 1)
            try:
                raw = self._storage.read(name)
            except FileNotFoundError:
                break
            following = rendering.parsed(raw, Root, self.root, "root", f"{self._where}/{name}")
            if following.version != self.root.version + 1:
                raise LedgerUnverified(f"{self._where}/{name}: holds version {following.version}")
            self.root = rendering.parsed(raw, Root, following, "root", f"{self._where}/{name}")
        return self.root.version > began

    def _read(self, name: str) -> bytes:
        try:
            return self._storage.read(name)
        except FileNotFoundError as cause:
            raise LedgerUnverified(
                f"{self._where}/{name}: is not there",
                hint="restore it from a copy or a mirror of the ledger",
            ) from cause


def head_of(timestamp: Timestamp) -> Head:
    """What a timestamp says about the commit it belongs to."""
    said = timestamp.unrecognized_fields.get(COMMIT, {})
    return Head(
        timestamp.version,
        str(said.get("claim", "")),
        float(said.get("time", 0)),
        timestamp.expires,
    )


def timestamp_body(
    version: int, expires: datetime, snapshot: bytes, commit: Mapping[str, Any]
) -> bytes:
    """The signed part of a timestamp that names these snapshot bytes."""
    return rendering.canonical(
        Timestamp(
            version=version,
            expires=expires,
            snapshot_meta=MetaFile.from_data(version, snapshot, ["sha256"]),
            unrecognized_fields={COMMIT: dict(commit)},
        ).to_dict()
    )


def _own_root(raw: bytes) -> Root:
    try:
        return Root.from_dict(json.loads(raw)["signed"])
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise LedgerUnverified(f"the trusted root: {cause}") from cause
