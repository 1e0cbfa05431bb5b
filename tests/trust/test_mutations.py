"""No single altered place of signed evidence is accepted, and each refusal says why."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from acceptance.private_sigstore.rekor import b64
from acceptance.private_sigstore.tsa import TimestampAuthority
from conforma.errors import TrustError
from conforma.trust.evidence import CERTIFICATE, CHAIN, REKOR_BUNDLE, SIGNATURE, Attached
from conforma.trust.rekor import Signer
from conforma.trust.rekor_search import find_witness
from conforma.trust.root import Authority
from conforma.trust.trust_policy import TrustPolicy
from tests.trust.lab import Lab, attached, check_bundle, check_layer
from tests.trust.mutations import mutations

# Places that nobody relies on: hints that are ignored, and material that the
# trust root makes superfluous. Everything else must be refused.
HINTS = re.compile(
    r"content\.signatures\.0\.keyid|dsseEnvelope\.signatures\.0\.keyid"
    r"|verificationMaterial\.publicKey(\.hint)?"
    rf"|annotations\.{re.escape(CHAIN)}"
)
NOT_LOOKED_AT = re.compile(
    rf"annotations\.{re.escape(REKOR_BUNDLE)}|verificationMaterial\.tlogEntries"
)

Check = Callable[[Any], Any]


def survivors(document: Any, check: Check) -> tuple[list[str], Counter[str], int]:
    """Mutations that pass, the reasons why the others do not, and how many there were."""
    check(document)
    passed, reasons, count = [], Counter[str](), 0
    for name, changed in mutations(document):
        count += 1
        try:
            check(changed)
            passed.append(name)
        except TrustError as refusal:
            reasons[f"{name}: {refusal.message}"] += 1
    return passed, reasons, count


def as_document(layer: Attached) -> dict[str, Any]:
    annotations: dict[str, Any] = dict(layer.annotations)
    annotations[REKOR_BUNDLE] = json.loads(annotations[REKOR_BUNDLE])
    return {"content": json.loads(layer.content), "annotations": annotations}


def layer_check(lab: Lab, layer: Attached, policy: TrustPolicy) -> Check:
    def check(document: Any) -> Any:
        given = document.get("annotations")
        annotations = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in (given if isinstance(given, dict) else {}).items()
        }
        separators = (",", ":") if layer.kind == "signature" else None
        content = json.dumps(document.get("content"), separators=separators).encode()
        changed = attached(layer.kind, layer.media_type, content, annotations)
        return check_layer(lab, changed, policy)

    return check


@pytest.mark.parametrize("keyless", [False, True], ids=["key", "keyless"])
@pytest.mark.parametrize("kind", ["signature", "attestation"])
def test_no_altered_layer_passes(kind: str, keyless: bool) -> None:
    lab = Lab()
    leaf = lab.fulcio.issue() if keyless else None
    layer = lab.signature(leaf=leaf) if kind == "signature" else lab.attestation(leaf=leaf)
    policy = lab.keyless() if keyless else lab.by_key()
    passed, reasons, count = survivors(as_document(layer), layer_check(lab, layer, policy))
    # An attestation's signature is inside its envelope; the annotation is not read.
    ignored = f"annotations.{SIGNATURE} " if kind == "attestation" else "\0"
    assert [n for n in passed if not HINTS.match(n) and not n.startswith(ignored)] == []
    assert count > 70
    # For the right reason: what is signed fails as such, what the log signed as well.
    expected = {
        f"annotations.{REKOR_BUNDLE}.Payload.integratedTime plus one": "unable to verify SET",
        f"annotations.{REKOR_BUNDLE}.Payload.logIndex plus one": "unable to verify SET",
        f"annotations.{REKOR_BUNDLE} removed": "rekor client not provided for online verification",
        f"annotations.{SIGNATURE} removed": f'is missing "{SIGNATURE}" annotation',
    }
    for name, reason in expected.items():
        found = [text for text in reasons if text.startswith(f"{name}: ")]
        assert len(found) == 1
        assert reason in found[0]
    altered = [text for text in reasons if text.startswith("content.") and "character" in text]
    assert altered
    assert all("matching bundle to payload: bundle=" in text for text in altered)


def test_without_the_log_every_signed_byte_still_counts() -> None:
    lab = Lab()
    policy = lab.by_key(ignore_rekor=True)
    for layer in (lab.signature(), lab.attestation()):
        passed, _, _ = survivors(as_document(layer), layer_check(lab, layer, policy))
        left = [n for n in passed if not HINTS.match(n) and not NOT_LOOKED_AT.match(n)]
        # The same signature twice is still one valid signature.
        allowed = {f"annotations.{SIGNATURE} filled", f"annotations.{SIGNATURE} longer"}
        allowed.add("content.signatures doubled")
        assert set(left) <= (allowed if layer.kind == "attestation" else set())


@pytest.mark.parametrize("keyless", [False, True], ids=["key", "keyless"])
def test_no_altered_bundle_passes(keyless: bool) -> None:
    lab = Lab()
    document = lab.bundle(leaf=lab.fulcio.issue() if keyless else None)
    policy = lab.keyless() if keyless else lab.by_key()
    passed, reasons, count = survivors(document, lambda changed: check_bundle(lab, changed, policy))
    left = [name for name in passed if not HINTS.match(name)]
    assert left == []
    assert count > 170
    entry = "verificationMaterial.tlogEntries.0"
    for name, reason in {
        f"{entry}.inclusionProof removed": "inclusion proof is missing",
        f"{entry}.kindVersion.kind empty": "of another kind than the bundle states",
        f"{entry}.logId.keyId character 0": "not enough verified log entries",
        "verificationMaterial.tlogEntries doubled": "duplicate tlog entries found",
        "verificationMaterial.tlogEntries empty": "not enough verified log entries",
        "dsseEnvelope.payload character 0": "transparency log hash does not match",
        "dsseEnvelope.signatures.0.sig character 0": "transparency log signature does not match",
        "dsseEnvelope.signatures doubled": "exactly one signature is required",
    }.items():
        found = [text for text in reasons if text.startswith(f"{name}: ")]
        assert found, name
        assert all(reason in text for text in found)


def test_an_entry_about_something_else_does_not_count_however_genuine() -> None:
    """The log signs what it is given; the entry must be about this signature."""
    lab = Lab()
    for keyless in (False, True):
        leaf = lab.fulcio.issue() if keyless else None
        policy = lab.keyless() if keyless else lab.by_key()
        layer = lab.signature(leaf=leaf)
        body = json.loads(_body_of(layer))

        def check(changed: Any, layer: Attached = layer, policy: TrustPolicy = policy) -> Any:
            annotations = dict(layer.annotations)
            annotations[REKOR_BUNDLE] = json.dumps(lab.log.add(changed).annotation())
            return check_layer(
                lab, attached("signature", layer.media_type, layer.content, annotations), policy
            )

        passed, reasons, _ = survivors(body, check)
        assert passed == []
        assert any("signature in bundle does not match" in text for text in reasons)
        assert any("comparing public key PEMs" in text for text in reasons)
        assert any("matching bundle to payload" in text for text in reasons)
        assert any('unexpected algorithm: "shaB56"' in text for text in reasons)


def test_a_bundle_entry_about_something_else_does_not_count_either() -> None:
    lab = Lab()
    for kind in ("dsse", "v2"):
        leaf = lab.fulcio.issue()
        document = lab.bundle(leaf=leaf, kind=kind, entry={"promise": kind == "dsse"})
        logged = document["verificationMaterial"]["tlogEntries"][0]
        body = json.loads(_decoded(logged["canonicalizedBody"]))

        def check(
            changed: Any, document: dict[str, Any] = document, promise: bool = kind == "dsse"
        ) -> Any:
            altered = json.loads(json.dumps(document))
            entry = lab.log.add(changed)
            try:
                bundled = entry.bundled(promise=promise)
            except KeyError:  # an entry without kind or version cannot be listed
                raise TrustError("no kind") from None
            altered["verificationMaterial"]["tlogEntries"] = [bundled]
            return check_bundle(lab, altered, lab.keyless())

        if kind == "v2":
            # No promise means no time; what is left to see is that nothing else passes.
            with pytest.raises(TrustError, match="threshold not met for verified log entry"):
                check(body)
            passed = [
                name
                for name, changed in mutations(body)
                if "threshold not met" in _refusal(check, changed)
            ]
            assert [n for n in passed if "keyDetails" not in n] == []
        else:
            passed, _, _ = survivors(body, check)
            # A bundle does not keep the envelope's own bytes, so nobody can know their hash.
            assert [n for n in passed if not n.startswith("spec.envelopeHash")] == []


def _refusal(check: Check, document: Any) -> str:
    try:
        check(document)
    except TrustError as refusal:
        return refusal.message
    return "passed"


def _body_of(layer: Attached) -> bytes:
    return _decoded(json.loads(layer.annotations[REKOR_BUNDLE])["Payload"]["body"])


def _decoded(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


def test_no_altered_bundle_of_rekor_v2_passes() -> None:
    lab, tsa = Lab(), TimestampAuthority()
    document = lab.bundle(leaf=lab.fulcio.issue(), kind="v2", entry={"promise": False})
    signature = _decoded(document["dsseEnvelope"]["signatures"][0]["sig"])
    stamp = {"signedTimestamp": b64(tsa.stamp(signature))}
    document["verificationMaterial"]["timestampVerificationData"] = {"rfc3161Timestamps": [stamp]}
    trusted = (Authority(tsa.chain),)
    passed, reasons, count = survivors(
        document,
        lambda changed: check_bundle(lab, changed, lab.keyless(), timestamp_authorities=trusted),
    )
    assert [name for name in passed if not HINTS.match(name)] == []
    assert count > 150
    for name, reason in {
        "verificationMaterial.timestampVerificationData removed": "threshold not met",
        "verificationMaterial.tlogEntries.0.logIndex as number": "is for another entry",
        "verificationMaterial.tlogEntries.0.inclusionProof removed": "neither an inclusion promise",
    }.items():
        (found,) = [text for text in reasons if text.startswith(f"{name}: ")]
        assert reason in found


@pytest.mark.parametrize("keyless", [False, True], ids=["key", "keyless"])
def test_no_altered_answer_of_a_log_passes(keyless: bool) -> None:
    lab = Lab()
    made = lab.signature(leaf=lab.fulcio.issue() if keyless else None)
    entry = lab.log.entries[-1]
    signer = Signer((made.annotations.get(CERTIFICATE, lab.pem),))
    value = _decoded(made.annotations[SIGNATURE])

    def check(answer: Any) -> object:
        content = json.dumps([answer]).encode()
        return find_witness(made, value, signer, lab.root(), lambda _: content)

    passed, _, count = survivors({entry.uuid: entry.retrieved()}, check)
    assert passed == []
    assert count > 75
