"""Certificates, logs and times: who is believed, in both layouts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from acceptance.private_sigstore import cosign, rekor
from acceptance.private_sigstore.der import text as der_text
from acceptance.private_sigstore.fulcio import CTLog, Fulcio, Leaf
from acceptance.private_sigstore.rekor import Rekor
from acceptance.private_sigstore.tsa import TimestampAuthority
from conforma.errors import BadEvidence, TrustError
from conforma.trust.certificate import SigningCertificate
from conforma.trust.evidence import CERTIFICATE, REKOR_BUNDLE, SIMPLE_SIGNING
from conforma.trust.identity import Identity
from conforma.trust.root import Authority, LogKey, Validity, by_id, log_key
from tests.trust.lab import DIGEST, P256, Lab, attached, check_bundle, check_layer

YEAR_AGO = datetime.now(UTC) - timedelta(days=365)
NO_SCT = "certificate does not include required embedded SCT and no detached SCT was set"
NO_GOOD_SCT = "only able to verify 0 SCT entries; unable to meet threshold of 1"


def refusals(lab: Lab, leaf: Leaf, **root: Any) -> tuple[str, str, str]:
    """What signature, attestation and bundle of one certificate are refused for."""
    policy = root.pop("policy", None) or lab.keyless()
    made = []
    for check in (
        lambda: check_layer(lab, lab.signature(leaf=leaf), policy, **root),
        lambda: check_layer(lab, lab.attestation(leaf=leaf), policy, **root),
        lambda: check_bundle(lab, lab.bundle(leaf=leaf), policy, **root),
    ):
        try:
            check()
            made.append("")
        except TrustError as refusal:
            made.append(refusal.message)
    return (made[0], made[1], made[2])


@pytest.mark.parametrize("ignore_rekor", [False, True])
def test_a_good_certificate_passes_everywhere(ignore_rekor: bool) -> None:
    lab = Lab()
    policy = lab.keyless(ignore_rekor=ignore_rekor)
    assert refusals(lab, lab.fulcio.issue(), policy=policy) == ("", "", "")


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("id.test"),
        x509.RFC822Name("me@id.test"),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), der_text("me!id.test")),
    ],
    ids=["dns", "email", "other"],
)
def test_every_kind_of_name(name: Any) -> None:
    lab = Lab()
    text = "me!id.test" if isinstance(name, x509.OtherName) else name.value
    leaf = lab.fulcio.issue(names=[name])
    policy = lab.keyless(identity=Identity(issuer="https://issuer.test", subject=text))
    assert refusals(lab, leaf, policy=policy) == ("", "", "")


def test_an_issuer_in_either_extension_and_the_newer_one_wins() -> None:
    lab = Lab()
    for extensions in ({1: b"https://issuer.test"}, {8: der_text("https://issuer.test")}):
        assert refusals(lab, lab.fulcio.issue(extensions=extensions)) == ("", "", "")
    torn = {1: b"https://issuer.test", 8: der_text("https://elsewhere.test")}
    assert all(
        "https://elsewhere.test" in r for r in refusals(lab, lab.fulcio.issue(extensions=torn))
    )


def test_somebody_else() -> None:
    lab = Lab()
    leaf = lab.fulcio.issue(names=[x509.RFC822Name("you@id.test")])
    legacy = (
        "none of the expected identities matched what was in the certificate, "
        "got subjects [you@id.test] with issuer https://issuer.test"
    )
    bundle = (
        "failed to verify certificate identity: no matching CertificateIdentity found, "
        'last error: expected SAN value "https://id.test/me", got "you@id.test"'
    )
    assert refusals(lab, leaf) == (legacy, legacy, bundle)


def test_another_authority() -> None:
    lab = Lab()
    stranger = Fulcio(ct_log=lab.fulcio.ct_log)
    legacy = "leaf certificate verification failed"
    assert refusals(lab, stranger.issue()) == (
        legacy,
        legacy,
        f"failed to verify leaf certificate: {legacy}",
    )
    alone = (Authority(lab.fulcio.chain),)
    individual = refusals(lab, stranger.issue(), individual=True, authorities=alone)
    assert individual[0].startswith("cert verification failed: ")
    assert individual[0].endswith("set a custom root with env var SIGSTORE_ROOT_FILE")


def test_an_authority_outside_its_own_validity() -> None:
    lab = Lab()
    ended = (Authority(lab.fulcio.chain, Validity(YEAR_AGO, YEAR_AGO + timedelta(days=1))),)
    assert refusals(lab, lab.fulcio.issue(), authorities=ended)[0] == (
        "leaf certificate verification failed"
    )
    assert refusals(lab, lab.fulcio.issue(), authorities=())[0] == (
        "leaf certificate verification failed"
    )


def test_intermediates_may_come_with_the_signature_if_trust_has_none() -> None:
    lab = Lab()
    only_root = (Authority((lab.fulcio.root,)),)
    leaf = lab.fulcio.issue()
    assert refusals(lab, leaf, authorities=only_root)[:2] == ("", "")
    without_chain = Leaf(leaf.key, leaf.certificate, ())
    assert refusals(lab, without_chain, authorities=only_root)[0] == (
        "leaf certificate verification failed"
    )


def test_certificates_for_other_purposes() -> None:
    lab = Lab()
    leaf = lab.fulcio.issue(usage=[ExtendedKeyUsageOID.CLIENT_AUTH])
    assert "leaf certificate verification failed" in refusals(lab, leaf)[0]
    assert "leaf certificate verification failed" in refusals(lab, leaf)[2]


def test_certificate_transparency() -> None:
    lab, foreign = Lab(), CTLog()
    good, bare = lab.fulcio.ct_log, "failed to verify signed certificate timestamp: "
    none = lab.fulcio.issue(logs=[])
    assert refusals(lab, none) == (NO_SCT, NO_SCT, f"{bare}{NO_SCT}")
    unknown = lab.fulcio.issue(logs=[foreign])
    assert refusals(lab, unknown) == (NO_GOOD_SCT, NO_GOOD_SCT, f"{bare}{NO_GOOD_SCT}")
    both = lab.fulcio.issue(logs=[foreign, good])
    assert refusals(lab, both) == ("", "", "")
    # Individual keys: every timestamp must verify.
    individual = refusals(lab, both, individual=True)
    assert individual[0].startswith("ctfe public key not found for payload. ")
    forged = CTLog()
    forged.__class__ = type("Forged", (CTLog,), {"log_id": good.log_id})
    assert refusals(lab, lab.fulcio.issue(logs=[forged]))[0] == NO_GOOD_SCT
    past = by_id([LogKey(good.key.public_key(), good.log_id, Validity(YEAR_AGO, YEAR_AGO), True)])
    assert refusals(lab, both, ct_logs=past)[0] == NO_GOOD_SCT
    undated = by_id([LogKey(good.key.public_key(), good.log_id, Validity(), True)])
    assert refusals(lab, both, ct_logs=undated)[0] == NO_GOOD_SCT


def test_a_timestamp_belongs_to_one_certificate() -> None:
    lab = Lab()
    one, two = lab.fulcio.issue(), lab.fulcio.issue()
    oid = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
    stamp = one.certificate.extensions.get_extension_for_oid(oid).value.public_bytes()

    class Replay(CTLog):
        def timestamp(self, *_: Any) -> bytes:
            return stamp[stamp.index(lab.fulcio.ct_log.log_id) - 1 :]

    replayed = lab.fulcio.issue(key=two.key, logs=[Replay()])
    assert refusals(lab, replayed)[0] == NO_GOOD_SCT


def test_signed_before_or_after_the_certificate_was_valid() -> None:
    lab = Lab()
    leaf = lab.fulcio.issue(at=datetime.now(UTC) - timedelta(hours=2))
    late, _, bundled = refusals(lab, leaf)
    assert late.startswith(
        "checking expiry on certificate with bundle: certificate expired before signatures "
        "were entered in log: "
    )
    assert bundled == "failed to verify log inclusion: integrated time outside certificate validity"
    ignoring = refusals(lab, leaf, policy=lab.keyless(ignore_rekor=True))
    assert ignoring == (
        "expected a signed timestamp to verify an expired certificate",
        "expected a signed timestamp to verify an expired certificate",
        "failed to verify leaf certificate: leaf certificate verification failed",
    )
    future = lab.fulcio.issue(at=datetime.now(UTC) + timedelta(hours=1))
    assert "was issued after signatures were entered in log: " in refusals(lab, future)[0]
    assert (
        "certificate is not valid before"
        in refusals(lab, future, policy=lab.keyless(ignore_rekor=True))[0]
    )


@pytest.mark.parametrize("keyless", [False, True], ids=["key", "keyless"])
def test_logs_must_be_known_and_valid_at_the_time(keyless: bool) -> None:
    lab = Lab()
    leaf = lab.fulcio.issue() if keyless else None
    policy = lab.keyless() if keyless else lab.by_key()
    key, log_id = lab.log.key.public_key(), lab.log.log_id
    prefix = "error verifying bundle: verifying bundle with trusted root: "
    for logs, reason, bundled in (
        (
            {},
            "rekor log public key not found for payload",
            "not enough verified log entries from transparency log: 0 < 1",
        ),
        (
            by_id([LogKey(key, log_id, Validity(YEAR_AGO, YEAR_AGO), True)]),
            "rekor log public key not valid at payload integrated time",
            "rekor log public key not valid at payload integrated time",
        ),
        (
            by_id([LogKey(key, log_id, Validity(), True)]),
            "rekor validity period start time not set",
            "rekor validity period start time not set",
        ),
        (
            by_id([LogKey(Rekor().key.public_key(), log_id)]),
            "unable to verify SET",
            "checkpoint: invalid signature",
        ),
    ):
        for layer in (lab.signature(leaf=leaf), lab.attestation(leaf=leaf)):
            with pytest.raises(TrustError) as refusal:
                check_layer(lab, layer, policy, logs=logs)
            assert refusal.value.message == prefix + reason
            with pytest.raises(TrustError) as alone:
                check_layer(lab, layer, policy, logs=logs, individual=True)
            assert alone.value.message == f"error verifying bundle: verifying bundle: {reason}"
        with pytest.raises(TrustError) as bundle:
            check_bundle(lab, lab.bundle(leaf=leaf), policy, logs=logs)
        assert bundle.value.message == f"failed to verify log inclusion: {bundled}"


def test_single_keys_have_no_dates() -> None:
    lab = Lab()
    logs = by_id([log_key(lab.log.key.public_key())])
    check_layer(lab, lab.signature(), lab.by_key(), logs=logs, individual=True)


def test_no_certificate_where_one_is_needed() -> None:
    lab = Lab()
    keyless = lab.keyless(ignore_rekor=True)
    with pytest.raises(TrustError, match=r"^no certificate found on signature$"):
        check_layer(lab, lab.signature(), keyless)
    with pytest.raises(TrustError, match=r"^SCTs required but bundle is signed with a public key"):
        check_bundle(lab, lab.bundle(), keyless)
    with pytest.raises(TrustError, match=r"^expected key signature, not certificate$"):
        check_bundle(lab, lab.bundle(leaf=lab.fulcio.issue()), lab.by_key())


def test_a_certificate_of_another_key_beside_the_policy_key() -> None:
    lab = Lab()
    made = lab.signature()
    annotations = {**made.annotations, CERTIFICATE: lab.fulcio.issue().pem}
    layer = attached("signature", SIMPLE_SIGNING, made.content, annotations)
    with pytest.raises(TrustError) as refusal:
        check_layer(lab, layer, lab.by_key())
    assert refusal.value.message == (
        "error verifying bundle: both public key and certificate were provided but did not match"
    )


def test_older_bundles() -> None:
    lab = Lab()
    leaf = lab.fulcio.issue()
    chain = {"certificates": [{"rawBytes": rekor.b64(leaf.der)}]}
    for version, proof in (("0.1", False), ("0.1", True), ("0.2", True), ("0.3", True)):
        document = lab.bundle(leaf=leaf, entry={"proof": proof})
        document["mediaType"] = f"application/vnd.dev.sigstore.bundle+json;version={version}"
        material = document["verificationMaterial"]
        del material["certificate"]
        material["x509CertificateChain"] = chain
        assert check_bundle(lab, document, lab.keyless()).bundle.version == version
    document = lab.bundle(leaf=leaf, entry={"proof": False})
    with pytest.raises(TrustError, match="inclusion proof is missing"):
        check_bundle(lab, document, lab.keyless())


def test_a_timestamp_authority_gives_time_to_logs_that_have_none() -> None:
    lab, tsa = Lab(), TimestampAuthority()
    leaf = lab.fulcio.issue()
    document = lab.bundle(leaf=leaf, kind="v2", entry={"promise": False})
    trusted = {"timestamp_authorities": (Authority(tsa.chain),)}
    signature = signature_in(document)
    with pytest.raises(TrustError, match="threshold not met for verified log entry"):
        check_bundle(lab, document, lab.keyless(), **trusted)
    stamps = document["verificationMaterial"].setdefault("timestampVerificationData", {})
    for stamp, reason in (
        (tsa.stamp(signature), ""),
        (tsa.stamp(b"another signature"), "threshold not met"),
        (TimestampAuthority().stamp(signature), "threshold not met"),
        (
            tsa.stamp(signature, datetime.now(UTC) - timedelta(hours=3)),
            "leaf certificate verification failed",
        ),
        (b"no timestamp", "malformed signed timestamp"),
    ):
        stamps["rfc3161Timestamps"] = [{"signedTimestamp": rekor.b64(stamp)}]
        if reason:
            with pytest.raises(TrustError, match=reason):
                check_bundle(lab, document, lab.keyless(), **trusted)
        else:
            assert len(check_bundle(lab, document, lab.keyless(), **trusted).times) == 1
            with pytest.raises(TrustError, match="threshold not met"):
                check_bundle(lab, document, lab.keyless())
    stamps["rfc3161Timestamps"] = [{"signedTimestamp": rekor.b64(tsa.stamp(signature))}] * 2
    with pytest.raises(TrustError, match="duplicate signed timestamps found"):
        check_bundle(lab, document, lab.keyless(), **trusted)


def test_message_signatures_sign_the_image_itself() -> None:
    lab = Lab(P256)
    image = b"the image"  # its digest is DIGEST
    for content, reason in ((image, ""), (b"another image", "invalid signature")):
        value = cosign.sign(lab.key, content)
        entry = lab.log.add(rekor.hashedrekord(content, value, lab.pem))
        document = {
            "mediaType": cosign.BUNDLE_TYPE,
            "verificationMaterial": {
                "publicKey": {"hint": ""},
                "tlogEntries": [entry.bundled()],
            },
            "messageSignature": {
                "messageDigest": {
                    "algorithm": "SHA2_256",
                    "digest": rekor.b64(bytes.fromhex(DIGEST.hex)),
                },
                "signature": rekor.b64(value),
            },
        }
        for ignore in (False, True):
            policy = lab.by_key(ignore_rekor=ignore)
            if not reason:
                assert check_bundle(lab, document, policy).statement is None
                continue
            with pytest.raises(TrustError, match=reason if ignore else "hash does not match"):
                check_bundle(lab, document, policy)
    document["messageSignature"]["messageDigest"]["digest"] = rekor.b64(b"x" * 32)  # type: ignore[index]
    with pytest.raises(TrustError, match="message digest is not that of the image"):
        check_bundle(lab, document, lab.by_key(ignore_rekor=True))


def test_a_bundle_about_another_image() -> None:
    lab = Lab()
    other = cosign.image_statement("sha256:" + "0" * 64)
    with pytest.raises(TrustError) as refusal:
        check_bundle(lab, lab.bundle(other), lab.by_key())
    assert refusal.value.message == (
        "failed to verify signature: provided artifact digest does not match any digest in statement"
    )
    other["subject"] = [{"digest": {"sha512": "0"}}]
    with pytest.raises(TrustError) as refusal:
        check_bundle(lab, lab.bundle(other), lab.by_key())
    assert refusal.value.message == (
        "failed to verify signature: provided artifact digests does not match digests in statement"
    )


def test_floods_of_entries() -> None:
    lab = Lab()
    document = lab.bundle()
    material = document["verificationMaterial"]
    entry = material["tlogEntries"][0]
    material["tlogEntries"] = [{**entry, "logIndex": str(n)} for n in range(33)]
    with pytest.raises(TrustError, match="too many tlog entries: 33 > 32"):
        check_bundle(lab, document, lab.by_key())


def test_an_unknown_kind_of_entry_is_named() -> None:
    lab = Lab()
    made = lab.signature()
    body = {"apiVersion": "0.0.1", "kind": "alpine", "spec": {}}
    annotations = {**made.annotations, REKOR_BUNDLE: json.dumps(lab.log.add(body).annotation())}
    layer = attached("signature", SIMPLE_SIGNING, made.content, annotations)
    with pytest.raises(BadEvidence, match=r"unexpected log entry type: alpine 0.0.1"):
        check_layer(lab, layer, lab.by_key())


def test_metadata_of_a_certificate() -> None:
    fulcio = Fulcio()
    names = [
        x509.DNSName("a.test"),
        x509.RFC822Name("me@id.test"),
        x509.UniformResourceIdentifier("https://id.test/1"),
        x509.UniformResourceIdentifier("https://id.test/2"),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), der_text("FOO")),
    ]
    extensions = {
        1: b"https://i.test",
        2: b"push",
        8: der_text("https://i.test"),
        20: der_text("push"),
        21: der_text("x" * 200),
    }
    leaf = fulcio.issue(names=names, extensions=extensions)
    metadata = SigningCertificate.parse(leaf.pem).metadata()
    assert list(metadata) == sorted(metadata)
    assert metadata["Subject Alternative Name"] == (
        "DNS Names:a.test; Email Addresses:me@id.test; "
        "URIs:https://id.test/1, https://id.test/2; OtherName:FOO"
    )
    assert metadata["Fulcio GitHub Workflow Trigger"] == "push"
    assert metadata["Fulcio Build Trigger"] == "push"
    assert metadata["Fulcio Run Invocation URI"] == "x" * 200
    assert metadata["Serial Number"] == f"{leaf.certificate.serial_number:x}"
    assert metadata["Not Before"].endswith("Z")
    assert "Subject" not in metadata
    broken = fulcio.issue(extensions={8: b"not DER"})
    with pytest.raises(BadEvidence, match="malformed certificate: a DER string"):
        SigningCertificate.parse(broken.pem)


def signature_in(document: dict[str, Any]) -> bytes:
    from base64 import b64decode

    return b64decode(document["dsseEnvelope"]["signatures"][0]["sig"])
