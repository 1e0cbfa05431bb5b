"""What a dead commit leaves behind: files that the timestamp does not lead to.

They are never taken as a base, because a base is what the timestamp names;
they are removed so that their names can be given again.
"""

from __future__ import annotations

import re
from typing import Final

from conforma.ledger.config import COMMITS, METADATA, version_and_role
from conforma.ledger.state import State
from conforma.ledger.storage import Storage

_RECORD: Final = re.compile(r"(?P<version>\d{10})\.(?P<claim>[0-9a-f-]+)\.json")


def discard_orphans(storage: Storage, state: State) -> list[str]:
    """Remove what was created for commits that never happened; the names removed.

    Only for the holder of the commit right, after it made its claim: from then
    on nobody else can publish what is removed here.
    """
    gone = [name for name in orphans(storage, state) if storage.remove(name)]
    if gone:
        storage.sync([METADATA, COMMITS])
    return gone


def orphans(storage: Storage, state: State) -> list[str]:
    """Versions above the published ones, and records of other commits than those that count."""
    head = state.head
    versions = {**state.snapshot.versions, "snapshot": head.version}
    found = []
    for name in storage.names(METADATA):
        known = version_and_role(name)
        if known is None:
            continue
        version, role = known
        # Root metadata is made offline and never by a commit.
        if role != "root" and version > versions.get(role, 0):
            found.append(f"{METADATA}/{name}")
    for name in storage.names(COMMITS):
        match = _RECORD.fullmatch(name)
        if match is None:
            continue
        version = int(match["version"])
        if version > head.version or (version == head.version and match["claim"] != head.claim):
            found.append(f"{COMMITS}/{name}")
    return found
