"""The online half of a rotation: root and targets that were signed offline are published.

It is a commit like any other, which also names the new targets and, if the
online key changed, signs every bin with the new one. The root is created
after the switch if readers with the old root can verify what is switched to,
else just before it; then a reader at that very moment has to try again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import Signer

from conforma.errors import LedgerError, LedgerUnverified
from conforma.ledger import rendering, rotation
from conforma.ledger.commit import Committer
from conforma.ledger.config import metadata_name
from conforma.ledger.ledger import Ledger
from conforma.ledger.rotation import Rotation, Staged


def adopt(ledger: Ledger, staged: Staged, where: Path, signers: Sequence[Signer]) -> int:
    """Publish what is staged; the version of the snapshot that holds it.

    ``signers`` are the online key and, to have no gap, the one that it
    replaces. ``ledger`` was opened by ``opened``. Raises ``LedgerError`` and
    ``InputError``; then nothing was published and doing it again is right.
    """
    signer, *also = signers
    committer = Committer(ledger.storage, ledger.state, ledger.history, ledger.inbox, signer)
    ledger.right.acquire()
    try:
        ledger.state.refresh()
        staged = rotation.verified(ledger.state, staged, where)
        _check_root(ledger, staged)
        record = committer.commit(Rotation(staged, tuple(also)))
    finally:
        ledger.right.release()
    assert record is not None
    return record.version


def _check_root(ledger: Ledger, staged: Staged) -> None:
    """Raise ``LedgerUnverified`` if there is another root of the staged version."""
    if staged.root is None:
        return
    name = metadata_name("root", staged.root.signed.version)
    try:
        found = ledger.storage.read(name)
    except FileNotFoundError:
        return
    if found != staged.root.to_bytes(rendering.Compact()):
        raise LedgerUnverified(
            f"{name}: is there already, with other content",
            hint="prepare the rotation anew, from the ledger as it is now",
        )


def opened(directory: Path, staged: Staged) -> Ledger:
    """The ledger as it is before the staged root, even if a crash left that root there.

    Raises ``LedgerError``, also if the whole of it is published already.
    """
    if staged.root is None:
        return Ledger(directory)
    version = staged.root.signed.version
    try:
        ledger = Ledger(directory)
    except LedgerUnverified:
        pass  # perhaps the root is there and what it must verify is not yet
    else:
        if ledger.state.root.version < version:
            return ledger
        ledger.close()
        if staged.targets is None or ledger.state.targets.version >= staged.targets.signed.version:
            raise LedgerError(
                f"{metadata_name('root', version)}: is published already",
                hint="nothing was changed",
            )
    return Ledger(directory, newest_root=version - 1)
