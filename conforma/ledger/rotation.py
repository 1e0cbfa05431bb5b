"""The offline half of a rotation: the next root and targets, signed by those who hold the keys.

Whoever holds an offline key signs on a machine of their own, with a copy of
the ledger's settings and metadata. The files that they hand on are worth
nothing until enough keys have signed: those that readers trust now, and
those that they are to trust from then on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    Delegations,
    Metadata,
    Root,
    SuccinctRoles,
    Targets,
    VerificationResult,
)
from tuf.api.serialization import DeserializationError

from conforma.errors import InputError, LedgerUnverified
from conforma.ledger import rendering
from conforma.ledger.state import State

ROOT: Final = "root.json"
TARGETS: Final = "targets.json"
_ONLINE: Final = ("snapshot", "timestamp")


class Change(Struct, frozen=True):
    """Keys that replace those of today; nothing means that they stay.

    ``threshold`` is how many keys must sign a root from then on, 0 to leave it.
    """

    root: tuple[Key, ...] = ()
    threshold: int = 0
    targets: Key | None = None
    online: Key | None = None

    def __bool__(self) -> bool:
        return bool(self.root or self.threshold or self.targets or self.online)


class Staged(Struct, frozen=True):
    """Metadata that was prepared; ``None`` for a role that stays as it is."""

    root: Metadata[Root] | None
    targets: Metadata[Targets] | None

    @classmethod
    def read(cls, directory: Path) -> Staged:
        """What is in a directory. Raises ``InputError``."""
        return cls(_read(directory / ROOT), _read(directory / TARGETS))

    def write(self, directory: Path) -> None:
        """Put the files into a directory. Raises ``InputError``."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for name, metadata in ((ROOT, self.root), (TARGETS, self.targets)):
                if metadata is not None:
                    (directory / name).write_bytes(metadata.to_bytes(rendering.Compact()))
        except OSError as cause:
            raise InputError(f"{directory}: {cause.strerror}") from cause

    def next_root(self, state: State) -> Root:
        """The root once this is published."""
        return self.root.signed if self.root is not None else state.root

    def missing(self, state: State) -> list[str]:
        """Which signatures are still needed, in words; empty if none."""
        following = self.next_root(state)
        needed: list[tuple[str, Metadata[Any], Root, str]] = []
        if self.root is not None:
            needed.append(("root: keys that are trusted now", self.root, state.root, "root"))
            needed.append(("root: keys that it names itself", self.root, following, "root"))
        if self.targets is not None:
            needed.append(("targets", self.targets, following, "targets"))
        lacking = []
        for what, metadata, root, role in needed:
            result = _signatures(metadata, root, role)
            if not result:
                keys = ", ".join(sorted(keyid[:16] for keyid in result.unsigned))
                have, wanted = len(result.signed), result.threshold
                lacking.append(f"{what}: {have} of {wanted} signed; may sign: {keys}")
        return lacking


class Rotation(Struct, frozen=True):
    """Root and targets that were signed offline, to be published by a commit.

    ``also`` are old online keys that sign snapshot and timestamp as well.
    """

    staged: Staged
    also: tuple[Signer, ...] = ()

    def leaves_no_gap(self, state: State, signer: Signer) -> bool:
        """Whether readers that know only the present root can verify what is published."""
        online = {one.public_key.keyid for one in (signer, *self.also)}
        targets = self.staged.targets
        return bool(online & set(state.root.roles["timestamp"].keyids)) and (
            targets is None or bool(_signatures(targets, state.root, "targets"))
        )


def stage(
    state: State, directory: Path, change: Change, signers: Sequence[Signer], lifetime: timedelta
) -> Staged:
    """Prepare the next root and targets in ``directory``, or sign what is prepared there.

    A role is prepared if a key of it signs or if what changes concerns it; it
    is good for ``lifetime`` from now. Raises ``InputError``.
    """
    begun = (directory / ROOT).exists() or (directory / TARGETS).exists()
    if begun and change:
        raise InputError(
            f"{directory}: a rotation is prepared there already",
            hint="add signatures with --sign alone, or begin anew in another directory",
        )
    staged = Staged.read(directory) if begun else _begun(state, change, signers, lifetime)
    check(state, staged)
    following = staged.next_root(state)
    used: set[str] = set()
    for metadata, role in ((staged.root, "root"), (staged.targets, "targets")):
        if metadata is None:
            continue
        entitled = {*state.root.roles[role].keyids, *following.roles[role].keyids}
        for signer in signers:
            keyid = signer.public_key.keyid
            if keyid in entitled:
                body = rendering.canonical(metadata.signed.to_dict())
                metadata.signatures[keyid] = rendering.sign(signer, body)
                used.add(keyid)
    strangers = [s.public_key.keyid for s in signers if s.public_key.keyid not in used]
    if strangers:
        raise InputError(
            f"{', '.join(keyid[:16] for keyid in strangers)}: this key signs neither root nor "
            "targets of this ledger",
            hint="give keys of these roles with --sign; nothing was written",
        )
    staged.write(directory)
    return staged


def check(state: State, staged: Staged) -> None:
    """Whether this can follow what is published. Raises ``InputError``, naming both versions."""
    for what, metadata, current in (
        (ROOT, staged.root, state.root),
        (TARGETS, staged.targets, state.targets),
    ):
        if metadata is None:
            continue
        if type(metadata.signed) is not type(current):
            raise InputError(f"{what}: is {metadata.signed.type} metadata")
        if metadata.signed.version != current.version + 1:
            raise InputError(
                f"{what}: is version {metadata.signed.version}, but {current.version} is published",
                hint="prepare the rotation anew, from the ledger as it is now",
            )
    if staged.targets is not None:
        made = staged.targets.signed.delegations
        roles = made.succinct_roles if made is not None else None
        bins = state.bins
        if roles is None or (roles.bit_length, roles.name_prefix) != (
            bins.bit_length,
            bins.name_prefix,
        ):
            raise InputError(f"{TARGETS}: does not delegate to the bins of this ledger")


def _begun(state: State, change: Change, signers: Sequence[Signer], lifetime: timedelta) -> Staged:
    expires = rendering.now() + lifetime
    signing = {signer.public_key.keyid for signer in signers}
    root: Metadata[Root] | None = None
    targets: Metadata[Targets] | None = None
    if change or signing & set(state.root.roles["root"].keyids):
        root = Metadata(_next_root(state.root, change))
        root.signed.expires = expires
    if change.targets or change.online or signing & set(state.root.roles["targets"].keyids):
        targets = Metadata(_next_targets(state, change))
        targets.signed.expires = expires
    return Staged(root, targets)


def _next_root(current: Root, change: Change) -> Root:
    root = copy.deepcopy(current)
    root.version += 1
    if change.root:
        _replace(root, "root", change.root)
    if change.targets is not None:
        _replace(root, "targets", [change.targets])
    if change.online is not None:
        for role in _ONLINE:
            _replace(root, role, [change.online])
    own = root.roles["root"]
    own.threshold = change.threshold or min(own.threshold, len(own.keyids))
    if not 1 <= own.threshold <= len(own.keyids):
        raise InputError(
            f"{own.threshold} keys of {len(own.keyids)} cannot sign a root",
            hint="name as many keys with --root-key as --threshold asks for",
        )
    return root


def _replace(root: Root, role: str, keys: Iterable[Key]) -> None:
    for keyid in list(root.roles[role].keyids):
        root.revoke_key(keyid, role)
    for key in keys:
        root.add_key(key, role)


def _next_targets(state: State, change: Change) -> Targets:
    targets = copy.deepcopy(state.targets)
    targets.version += 1
    if change.online is not None:
        key, bins = change.online, state.bins
        targets.delegations = Delegations(
            {key.keyid: key},
            succinct_roles=SuccinctRoles([key.keyid], 1, bins.bit_length, bins.name_prefix),
        )
    return targets


def _signatures(metadata: Metadata[Any], root: Root, role: str) -> VerificationResult:
    body = rendering.canonical(metadata.signed.to_dict())
    return root.get_verification_result(role, body, metadata.signatures)


def _read(path: Path) -> Metadata[Any] | None:
    try:
        return Metadata.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise InputError(f"{path}: {cause.strerror}") from cause
    except (DeserializationError, RepositoryError, ValueError) as cause:
        raise InputError(f"{path}: is no metadata: {cause}") from cause


def verified(state: State, staged: Staged, where: Path) -> Staged:
    """What is still to be published, once everybody who must has signed it.

    Targets are not if a rotation was cut off between them and its root. Raises
    ``LedgerUnverified`` if signatures are missing, ``InputError``.
    """
    if staged.root is None and staged.targets is None:
        raise InputError(
            f"{where}: nothing is prepared there",
            hint=f"prepare and sign it first: conforma ledger rotate … --staged {where} --sign KEY",
        )
    if staged.root and staged.targets and staged.targets.signed == state.targets:
        staged = Staged(staged.root, None)
    check(state, staged)
    if lacking := staged.missing(state):
        raise LedgerUnverified(
            f"{where}: " + "; ".join(lacking), hint="nothing was changed; add them with --sign"
        )
    return staged
