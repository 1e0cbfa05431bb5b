"""``python -m tests.trust.count_mutations``: how many altered objects were tried, how many passed."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from functools import partial
from typing import Any

from acceptance.private_sigstore.rekor import b64
from acceptance.private_sigstore.tsa import TimestampAuthority
from conforma.trust.evidence import SIGNATURE
from conforma.trust.rekor import Signer
from conforma.trust.rekor_search import find_witness
from conforma.trust.root import Authority
from tests.trust.lab import Lab, check_bundle
from tests.trust.test_mutations import HINTS, Check, as_document, layer_check, survivors

Case = tuple[str, Any, Check]


def cases(*, keyless: bool) -> Iterator[Case]:
    """Each kind of evidence of one mode: its name, the document to alter, and what must refuse it."""
    lab = Lab()
    leaf = lab.fulcio.issue() if keyless else None
    policy = lab.keyless() if keyless else lab.by_key()
    for layer in (lab.signature(leaf=leaf), lab.attestation(leaf=leaf)):
        yield layer.kind, as_document(layer), layer_check(lab, layer, policy)
    yield "bundle", lab.bundle(leaf=leaf), partial(_bundle, lab, policy)
    yield "answer of the log", *answered(lab, leaf)
    if keyless:
        yield "bundle, Rekor v2", *stamped(lab, policy)


def _bundle(lab: Lab, policy: Any, document: Any) -> object:
    return check_bundle(lab, document, policy)


def answered(lab: Lab, leaf: Any) -> tuple[Any, Check]:
    """What a log answers about a signature that came without an entry."""
    made = lab.signature(leaf=leaf)
    entry = lab.log.entries[-1]
    signer = Signer((lab.pem if leaf is None else leaf.pem,))
    value = b64decode(made.annotations[SIGNATURE])

    def check(answer: Any) -> object:
        content = json.dumps([answer]).encode()
        return find_witness(made, value, signer, lab.root(), lambda _: content)

    return {entry.uuid: entry.retrieved()}, check


def stamped(lab: Lab, policy: Any) -> tuple[Any, Check]:
    """A bundle whose only time is that of a timestamp authority."""
    tsa = TimestampAuthority()
    document = lab.bundle(leaf=lab.fulcio.issue(), kind="v2", entry={"promise": False})
    value = b64decode(document["dsseEnvelope"]["signatures"][0]["sig"])
    document["verificationMaterial"]["timestampVerificationData"] = {
        "rfc3161Timestamps": [{"signedTimestamp": b64(tsa.stamp(value))}]
    }
    trusted = (Authority(tsa.chain),)
    return document, lambda changed: check_bundle(
        lab, changed, policy, timestamp_authorities=trusted
    )


def main() -> int:
    """Alter everything and print the totals; 1 if anything passed that must not."""
    tried = accepted = hints = 0
    for mode in ("key", "keyless"):
        for name, document, check in cases(keyless=mode == "keyless"):
            passed, _, count = survivors(document, check)
            # The signature of an attestation is inside its envelope.
            unread = f"annotations.{SIGNATURE} " if name == "attestation" else "\0"
            wrong = [p for p in passed if not HINTS.match(p) and not p.startswith(unread)]
            tried, accepted = tried + count, accepted + len(wrong)
            hints += len(passed) - len(wrong)
            print(f"{mode:8} {name:18} {count:4} tried, {len(wrong)} accepted {wrong or ''}")
    print(f"total: {tried} tried, {accepted} accepted, {hints} in fields that are only hints")
    return 1 if accepted else 0


if __name__ == "__main__":
    raise SystemExit(main())
