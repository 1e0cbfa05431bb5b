"""Inclusion in a log's Merkle tree, and the log's signature under the root.

Sources: RFC 6962 2.1.1 and 2.1.3 (RFC 9162 2.1.3.2 for the check), the C2SP
``tlog-checkpoint`` and ``signed-note`` formats. Unlike sigstore-python the
tree size of the proof must be that of the checkpoint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final

from conforma.errors import NotInLog, SignatureMismatch
from conforma.trust.rekor_entry import InclusionProof
from conforma.trust.strict_json import decode_base64

_NOTE_SIGNATURE: Final = re.compile(r"\u2014 (?P<name>\S+) (?P<value>\S+)")
_MAX_NOTE: Final = 1 << 20


def leaf_hash(body: bytes) -> bytes:
    """The Merkle leaf hash of an entry."""
    return hashlib.sha256(b"\0" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The Merkle hash of two subtrees."""
    return hashlib.sha256(b"\1" + left + right).digest()


def root_from_path(leaf: bytes, index: int, size: int, path: tuple[bytes, ...]) -> bytes:
    """The root that ``path`` leads to (RFC 9162 2.1.3.2).

    Raises ``NotInLog`` for a path that cannot belong to this index and size.
    """
    if not 0 <= index < size:
        raise NotInLog(f"inclusion proof: index {index} lies outside a tree of {size}")
    node, last, result = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise NotInLog("inclusion proof: too many hashes")
        if node & 1 or node == last:
            result = node_hash(sibling, result)
            while node and not node & 1:
                node >>= 1
                last >>= 1
        else:
            result = node_hash(result, sibling)
        node >>= 1
        last >>= 1
    if last != 0:
        raise NotInLog("inclusion proof: too few hashes")
    return result


def check_inclusion(body: bytes, proof: InclusionProof) -> None:
    """Return if ``proof`` leads from ``body`` to its root hash. Raises ``NotInLog``."""
    root = root_from_path(leaf_hash(body), proof.log_index, proof.tree_size, proof.hashes)
    if root != proof.root_hash:
        raise NotInLog("inclusion proof: calculated another root hash")


def check_checkpoint(
    proof: InclusionProof, key_hint: bytes, verify: Callable[[bytes, bytes], None]
) -> None:
    """Return if the log signed a checkpoint of exactly the proof's tree.

    ``key_hint`` is the start of the log's identifier, ``verify`` takes
    signature and note and raises ``SignatureMismatch``. Raises ``NotInLog``.
    """
    note, signatures = _split(proof.checkpoint)
    lines = note.split("\n")
    if len(lines) < 4 or not lines[0]:
        raise NotInLog("checkpoint: needs an origin, a size and a root hash")
    if lines[1] != str(proof.tree_size):
        raise NotInLog(f"checkpoint: is about a tree of {lines[1][:20]!r}, not {proof.tree_size}")
    try:
        root = decode_base64(lines[2])
    except ValueError as cause:
        raise NotInLog(f"checkpoint: root hash: {cause}") from cause
    if root != proof.root_hash:
        raise NotInLog("checkpoint: is about another root hash")
    for match in signatures:
        if not f"{lines[0]} ".startswith(f"{match['name']} "):
            continue
        value = _signature_bytes(match["value"])
        if value[:4] != key_hint[:4]:
            continue
        try:
            return verify(value[4:], note.encode())
        except SignatureMismatch as cause:
            raise NotInLog("checkpoint: invalid signature") from cause
    raise NotInLog("checkpoint: not signed by the log")


def _split(checkpoint: str) -> tuple[str, list[re.Match[str]]]:
    if len(checkpoint) > _MAX_NOTE:
        raise NotInLog("checkpoint: too large")
    text, separator, block = checkpoint.rpartition("\n\n")
    if not separator or not block.endswith("\n"):
        raise NotInLog("checkpoint: not a signed note")
    matches = [_NOTE_SIGNATURE.fullmatch(line) for line in block[:-1].split("\n")]
    if not all(matches):
        raise NotInLog("checkpoint: malformed signature line")
    return f"{text}\n", [match for match in matches if match]


def _signature_bytes(text: str) -> bytes:
    try:
        value = decode_base64(text)
    except ValueError as cause:
        raise NotInLog(f"checkpoint: signature: {cause}") from cause
    if len(value) < 5:
        raise NotInLog("checkpoint: signature is too short")
    return value
