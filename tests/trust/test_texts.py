"""The texts of the signature specification as users get them: whole, and word for word.

Texts that the Go tool has and we have not, because the case cannot arise or is
judged otherwise, are in ``docs/differences.md``.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from msgspec.structs import replace

from acceptance.private_sigstore import cosign
from acceptance.private_sigstore.der import text as der_text
from acceptance.private_sigstore.fulcio import Fulcio
from acceptance.private_sigstore.rekor import b64, hashedrekord
from conforma.errors import ConformaError, InputError
from conforma.oci.digest import Digest
from conforma.trust.certificate import SigningCertificate
from conforma.trust.evidence import REKOR_BUNDLE, SIGNATURE, Attached
from conforma.trust.keys import PublicKey
from conforma.trust.root import by_id, log_key
from conforma.trust.signature import Attestation
from tests.trust.conftest import World
from tests.trust.lab import OTHER, Lab, attached, check_bundle, check_layer

DSSE = "application/vnd.dsse.envelope.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
NOW = datetime.now(UTC).replace(microsecond=0)


def told(ask: Callable[[], Any]) -> str:
    with pytest.raises(ConformaError) as refusal:
        ask()
    return refusal.value.message


def z(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# Layers


def test_a_layer_without_its_signature() -> None:
    lab = Lab()
    made = lab.signature()
    bare = replace(made, annotations={})
    assert told(lambda: check_layer(lab, bare, lab.by_key())) == (
        f'signature layer {made.digest} is missing "dev.cosignproject.cosign/signature" annotation'
    )


def test_a_layer_too_large(world: World) -> None:
    made = world.lab.signature(world.digest)
    world.tag("sig", made)
    repository = world.server.store.repository("app")
    found = repository.find(f"sha256-{world.digest.hex}.sig")
    assert found is not None
    document = json.loads(found[1].raw)
    document["layers"][0]["size"] = 134217729
    repository.put_manifest(
        json.dumps(document).encode(), found[1].media_type, tag=f"sha256-{world.digest.hex}.sig"
    )
    assert told(lambda: world.verifier(world.lab.by_key()).image_signatures(world.image)) == (
        "no matching signatures: size of layer (134217729) exceeded the limit (134217728)"
    )


@pytest.mark.parametrize(
    ("media_type", "content", "reason"),
    [
        (
            "text/plain",
            b"{}",
            f"malformed attestation data: expecting media type of `{DSSE}`, received: `text/plain`",
        ),
        (DSSE, b"", "malformed attestation data: EOF"),
        (DSSE, b'{"payload": ""}', "no `payload` data found"),
        (
            DSSE,
            b'{"payload": "?"}',
            "malformed attestation data: illegal base64 data at input byte 0",
        ),
        (
            DSSE,
            b'{"payload": "e30=", "payloadType": "text/html"}',
            f"invalid payloadType text/html on envelope. Expected {IN_TOTO}",
        ),
    ],
)
def test_attestations_that_are_none(media_type: str, content: bytes, reason: str) -> None:
    lab = Lab()
    layer = attached("attestation", media_type, content, {SIGNATURE: ""})
    policy = lab.by_key(ignore_rekor=True)
    assert told(lambda: check_layer(lab, layer, policy)) == reason


# The log


def test_an_entry_about_other_bytes() -> None:
    lab = Lab()
    made = lab.signature()
    value = b64decode(made.annotations[SIGNATURE])
    entry = lab.log.add(hashedrekord(b"other", value, lab.pem))
    torn = replace(
        made, annotations={**made.annotations, REKOR_BUNDLE: json.dumps(entry.annotation())}
    )
    assert told(lambda: check_layer(lab, torn, lab.by_key())) == (
        f'error verifying bundle: matching bundle to payload: bundle="{Digest.of(b"other").hex}", '
        f'payload="{made.digest.hex}"'
    )


def test_a_log_that_is_unknown_with_single_keys() -> None:
    lab = Lab()
    logs = by_id([log_key(Lab().log.key.public_key())])
    assert told(
        lambda: check_layer(lab, lab.signature(), lab.by_key(), logs=logs, individual=True)
    ) == ("error verifying bundle: verifying bundle: rekor log public key not found for payload")
    assert told(lambda: check_bundle(lab, lab.bundle(), lab.by_key(), logs={})) == (
        "failed to verify log inclusion: "
        "not enough verified log entries from transparency log: 0 < 1"
    )


def test_a_bundle_without_a_time() -> None:
    lab = Lab()
    document = lab.bundle(leaf=lab.fulcio.issue(), entry={"promise": False})
    entry = document["verificationMaterial"]["tlogEntries"][0]
    assert entry["inclusionProof"]
    assert told(lambda: check_bundle(lab, document, lab.keyless())) == (
        "failed to verify timestamps: "
        "threshold not met for verified log entry integrated timestamps: 0 < 1"
    )


# Certificates


def expired(lab: Lab, at: datetime) -> Attached:
    return lab.signature(leaf=lab.fulcio.issue(at=at))


def test_a_certificate_that_ended_before_it_was_logged() -> None:
    lab = Lab()
    made = expired(lab, NOW - timedelta(hours=2))
    logged = datetime.fromtimestamp(lab.log.entries[-1].time, UTC)
    assert told(lambda: check_layer(lab, made, lab.keyless())) == (
        "checking expiry on certificate with bundle: "
        "certificate expired before signatures were entered in log: "
        f"{z(NOW - timedelta(hours=2) + timedelta(minutes=10))} is before {z(logged)}"
    )


def test_a_certificate_that_began_after_it_was_logged() -> None:
    lab = Lab()
    begin = NOW + timedelta(hours=2)
    made = expired(lab, begin)
    logged = datetime.fromtimestamp(lab.log.entries[-1].time, UTC)
    assert told(lambda: check_layer(lab, made, lab.keyless())) == (
        "checking expiry on certificate with bundle: "
        f"certificate was issued after signatures were entered in log: {z(begin)} is after "
        f"{z(logged)}"
    )


def test_an_authority_nobody_named() -> None:
    lab = Lab()
    made = lab.signature(leaf=Fulcio(ct_log=lab.fulcio.ct_log).issue())
    message = told(lambda: check_layer(lab, made, lab.keyless(), individual=True))
    assert message.startswith("cert verification failed: ")
    assert message.endswith(
        ". Check your TUF root (see cosign initialize) or set a custom root with env var "
        "SIGSTORE_ROOT_FILE"
    )


def test_timestamps_of_unknown_logs() -> None:
    lab = Lab()
    leaf = lab.fulcio.issue()
    assert told(lambda: check_bundle(lab, lab.bundle(leaf=leaf), lab.keyless(), ct_logs={})) == (
        "failed to verify signed certificate timestamp: "
        "only able to verify 0 SCT entries; unable to meet threshold of 1"
    )
    other = log_key(Lab().fulcio.ct_log.key.public_key())
    forged = by_id([replace(other, log_id=lab.fulcio.ct_log.log_id)])
    message = told(
        lambda: check_layer(
            lab, lab.signature(leaf=leaf), lab.keyless(), ct_logs=forged, individual=True
        )
    )
    assert message == (
        "error verifying embedded SCT: invalid signature when validating ASN.1 encoded signature"
    )


def test_every_name_of_the_metadata() -> None:
    names = [
        x509.DNSName("a.test"),
        x509.DNSName("b.test"),
        x509.RFC822Name("me@id.test"),
        x509.UniformResourceIdentifier("http://foobar.dev"),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), der_text("FOO")),
    ]
    raw = {number: f"raw {number}".encode() for number in range(1, 7)}
    strings = {number: der_text(f"text {number}") for number in range(8, 22)}
    leaf = Lab().fulcio.issue(names=names, extensions={**raw, **strings}, at=NOW)
    assert SigningCertificate(leaf.certificate).metadata() == {
        "Issuer": "CN=private-intermediate,O=private.test",
        "Serial Number": f"{leaf.certificate.serial_number:x}",
        "Not Before": z(NOW),
        "Not After": z(NOW + timedelta(minutes=10)),
        "Subject Alternative Name": "DNS Names:a.test, b.test; Email Addresses:me@id.test; "
        "URIs:http://foobar.dev; OtherName:FOO",
        "Fulcio Issuer": "raw 1",
        "Fulcio GitHub Workflow Trigger": "raw 2",
        "Fulcio GitHub Workflow SHA": "raw 3",
        "Fulcio GitHub Workflow Name": "raw 4",
        "Fulcio GitHub Workflow Repository": "raw 5",
        "Fulcio GitHub Workflow Ref": "raw 6",
        "Fulcio Issuer (V2)": "text 8",
        "Fulcio Build Signer URI": "text 9",
        "Fulcio Build Signer Digest": "text 10",
        "Fulcio Runner Environment": "text 11",
        "Fulcio Source Repository URI": "text 12",
        "Fulcio Source Repository Digest": "text 13",
        "Fulcio Source Repository Ref": "text 14",
        "Fulcio Source Repository Identifier": "text 15",
        "Fulcio Source Repository Owner URI": "text 16",
        "Fulcio Source Repository Owner Identifier": "text 17",
        "Fulcio Build Config URI": "text 18",
        "Fulcio Build Config Digest": "text 19",
        "Fulcio Build Trigger": "text 20",
        "Fulcio Run Invocation URI": "text 21",
    }


def test_an_address_among_the_names() -> None:
    from ipaddress import ip_address

    leaf = Lab().fulcio.issue(names=[x509.IPAddress(ip_address("192.0.2.1"))])
    shown = SigningCertificate(leaf.certificate).metadata()["Subject Alternative Name"]
    assert shown == "IP addresses:192.0.2.1"


# Bundles


def test_a_key_where_a_certificate_is_wanted_and_the_reverse() -> None:
    lab = Lab()
    assert told(lambda: check_bundle(lab, lab.bundle(), lab.keyless())) == (
        "SCTs required but bundle is signed with a public key, which cannot contain SCTs"
    )
    document = lab.bundle(leaf=lab.fulcio.issue())
    assert told(lambda: check_bundle(lab, document, lab.by_key())) == (
        "expected key signature, not certificate"
    )


def enveloped(lab: Lab, payload: bytes, payload_type: str = IN_TOTO) -> dict[str, Any]:
    """A bundle around any payload, well signed."""
    document = lab.bundle()
    signature = b64(cosign.sign(lab.key, cosign.pae(payload, payload_type)))
    document["dsseEnvelope"] = {
        "payload": b64(payload),
        "payloadType": payload_type,
        "signatures": [{"keyid": "", "sig": signature}],
    }
    return document


@pytest.mark.parametrize(
    ("payload", "payload_type", "reason"),
    [
        (b"", IN_TOTO, "no `payload` data found in bundle attestation"),
        (b"[]", IN_TOTO, "malformed bundle attestation: the statement is not an object"),
        (b"{}", "text/html", f"invalid payloadType text/html on envelope. Expected {IN_TOTO}"),
    ],
)
def test_bundles_around_something_else(payload: bytes, payload_type: str, reason: str) -> None:
    lab = Lab()
    document = enveloped(lab, payload, payload_type)
    policy = lab.by_key(ignore_rekor=True)
    assert told(lambda: check_bundle(lab, document, policy)) == reason


def attestations_of(world: World, statement: dict[str, Any], layout: str) -> list[Attestation]:
    if layout == "bundle":
        world.attach_bundle(world.lab.bundle(statement))
    else:
        world.tag("att", world.lab.attestation(statement))
    return list(world.verifier(world.lab.by_key()).attestations(world.image))


@pytest.mark.parametrize(
    ("layout", "changes", "reason"),
    [
        ("bundle", {}, "unable to parse bundle attestation: unsupported attestation type: strange"),
        ("tag", {}, "unable to parse as SLSA v0.2: unsupported attestation type: strange"),
        (
            "tag",
            {"predicateType": "https://slsa.dev/provenance/v1"},
            "unable to parse as SLSA v1: unsupported attestation type: strange",
        ),
    ],
)
def test_statements_of_a_strange_type(
    world: World, layout: str, changes: dict[str, str], reason: str
) -> None:
    statement = cosign.provenance(str(world.digest), _type="strange", **changes)
    assert told(lambda: attestations_of(world, statement, layout)) == reason


# Claims and keys


def test_evidence_of_another_image(world: World) -> None:
    world.tag("sig", world.lab.signature(OTHER))
    world.tag("att", world.lab.attestation(cosign.provenance(str(OTHER))))
    verifier = world.verifier(world.lab.by_key())
    assert told(lambda: verifier.image_signatures(world.image)) == (
        f"no matching signatures: invalid or missing digest in claim: {OTHER}"
    )
    assert told(lambda: verifier.attestations(world.image)) == (
        "no matching attestations: no matching subject digest found"
    )


def test_a_variable_that_is_not_there() -> None:
    assert told(lambda: PublicKey.load("env://NAME", environ={})) == (
        "loading URL: env var $NAME not found"
    )


def test_a_pkcs1_key_in_a_file(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = rsa.generate_private_key(65537, 2048).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    assert pem.startswith(b"-----BEGIN RSA PUBLIC KEY-----")
    (tmp_path / "rsa.pub").write_bytes(pem)
    loaded = PublicKey.load(str(tmp_path / "rsa.pub"))
    assert loaded.pem.startswith("-----BEGIN PUBLIC KEY-----")
    with pytest.raises(InputError, match="unknown Public key PEM file type: PRIVATE KEY"):
        PublicKey(loaded.pem.replace("PUBLIC KEY", "PRIVATE KEY"))
