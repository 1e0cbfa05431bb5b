"""The log entry of a signature that came without one, as the log itself returns it.

Source: signatures.md 4.4 and 5.1; the interface of Rekor v1
(``POST /api/v1/log/entries/retrieve``). What comes back is believed no more
than what is attached to an image: it must be about this signature, promised
by a log we trust, and included in that log's signed tree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from conforma.errors import BadEvidence, LogUnavailable, NotInLog, TrustError
from conforma.oci.digest import Digest
from conforma.trust.evidence import Attached
from conforma.trust.fields import a_text, an_integer, an_object, from_base64, from_hex
from conforma.trust.merkle import leaf_hash
from conforma.trust.rekor import Signer, Witness, check_body, check_promise, check_proof
from conforma.trust.rekor_entry import MAX_PROOF_HASHES, InclusionProof, LogEntry
from conforma.trust.root import TrustRoot
from conforma.trust.strict_json import encode_base64, load_json

#: Sends a query to the log; the answer, or ``None`` if the log has no such entry.
AskLog = Callable[[bytes], bytes | None]

_MOST_CANDIDATES: Final = 100
_WHAT: Final = "malformed log entry"
_UUID: Final = re.compile("(?:[0-9a-f]{16})?(?P<leaf>[0-9a-f]{64})")


def find_witness(
    layer: Attached, signature: bytes, signer: Signer, root: TrustRoot, ask: AskLog
) -> Witness:
    """The earliest verified entry for ``layer``.

    Raises ``NotInLog`` if the log has none that holds, and ``LogUnavailable``
    or what ``ask`` raises if it did not say.
    """
    refusal = NotInLog("signature not found in transparency log")
    # One question for each key: a log answers none of several if it dislikes one.
    for pem in signer.pems:
        try:
            answer = ask(query(layer, signature, pem))
            if answer is not None and (listed := _listed(answer)):
                return _earliest(listed, layer, signature, signer, root)
        except NotInLog as cause:
            refusal = cause
    raise refusal


def _earliest(
    listed: list[tuple[str, Any]],
    layer: Attached,
    signature: bytes,
    signer: Signer,
    root: TrustRoot,
) -> Witness:
    found: list[tuple[int, Witness]] = []
    reasons: list[str] = []
    own = signature if layer.kind == "signature" else None
    for uuid, document in listed[:_MOST_CANDIDATES]:
        try:
            entry = _entry(uuid, document)
            if entry is None:
                continue
            check_body(entry, signature=own, signer=signer, signed=layer.content)
            check_proof(entry, root.logs)
            found.append((entry.integrated_time, check_promise(entry, root.logs)))
        except TrustError as cause:
            reasons.append(cause.message)
    if found:
        return min(found, key=lambda pair: pair[0])[1]
    if reasons:
        raise NotInLog(f"no valid tlog entries found {', '.join(dict.fromkeys(reasons))}")
    raise NotInLog("no valid tlog entries found with proposed entry")


def query(layer: Attached, signature: bytes, pem: str) -> bytes:
    """What to ask the log for: the entries that cosign would have made for ``layer``."""
    if layer.kind == "signature":
        spec: dict[str, Any] = {
            "data": {"hash": {"algorithm": "sha256", "value": Digest.of(layer.content).hex}},
            "signature": {
                "content": encode_base64(signature),
                "publicKey": {"content": encode_base64(pem.encode())},
            },
        }
        proposed = [_proposal("hashedrekord", spec)]
    else:
        envelope, key = layer.content.decode("utf-8", "replace"), encode_base64(pem.encode())
        content = {"proposedContent": {"envelope": envelope, "verifiers": [key]}}
        proposed = [
            _proposal("dsse", content),
            _proposal("intoto", {"content": {"envelope": envelope}, "publicKey": key}),
        ]
    return json.dumps({"entries": proposed}).encode()


def _proposal(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "0.0.1", "kind": kind, "spec": spec}


def _listed(answer: bytes) -> list[tuple[str, Any]]:
    try:
        document = load_json(answer, "searching log query")
    except BadEvidence as cause:
        raise LogUnavailable(cause.message) from cause
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise LogUnavailable("searching log query: the answer is not a list of entries")
    return [found for item in document for found in item.items()]


def _entry(uuid: str, document: Any) -> LogEntry | None:
    """The entry, or ``None`` if it is not the one its name promises. Raises ``BadEvidence``."""
    members = an_object(document, _WHAT)
    body = from_base64(members.get("body"), _WHAT)
    name = _UUID.fullmatch(uuid)
    if name is None or name["leaf"] != leaf_hash(body).hex():
        return None
    evidence = an_object(members.get("verification"), _WHAT)
    return LogEntry(
        body,
        from_hex(members.get("logID"), _WHAT),
        an_integer(members.get("logIndex"), _WHAT),
        an_integer(members.get("integratedTime"), _WHAT),
        from_base64(evidence.get("signedEntryTimestamp"), _WHAT),
        _proof(an_object(evidence.get("inclusionProof"), _WHAT)),
    )


def _proof(proof: Mapping[str, Any]) -> InclusionProof:
    hashes = proof.get("hashes")
    if not isinstance(hashes, list) or len(hashes) > MAX_PROOF_HASHES:
        raise BadEvidence(f"{_WHAT}: an inclusion proof has at most {MAX_PROOF_HASHES} hashes")
    return InclusionProof(
        an_integer(proof.get("logIndex"), _WHAT),
        an_integer(proof.get("treeSize"), _WHAT),
        from_hex(proof.get("rootHash"), _WHAT),
        tuple(from_hex(item, _WHAT) for item in hashes),
        a_text(proof.get("checkpoint"), _WHAT),
    )
