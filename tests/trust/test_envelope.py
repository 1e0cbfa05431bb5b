from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conforma.errors import BadEvidence, SignatureMismatch
from conforma.oci.digest import Digest
from conforma.trust.envelope import (
    IN_TOTO,
    MAX_SUBJECT_DIGESTS,
    MAX_SUBJECTS,
    Envelope,
    Statement,
    pre_authentication_encoding,
)
from conforma.trust.signature import build_type_of
from conforma.trust.simple_signing import check_claim

DIGEST = Digest.of(b"image")


def test_the_encoding_is_that_of_the_protocol() -> None:
    # The example of the DSSE protocol's text.
    assert (
        pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(st.text(), st.binary(), st.text(), st.binary())
def test_two_messages_never_have_one_encoding(t1: str, p1: bytes, t2: str, p2: bytes) -> None:
    same = pre_authentication_encoding(t1, p1) == pre_authentication_encoding(t2, p2)
    assert same == ((t1, p1) == (t2, p2))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "malformed attestation data: EOF"),
        (b"[]", "malformed attestation data: the envelope is not an object"),
        (b"{}", "no `payload` data found"),
        (b'{"payload": ""}', "no `payload` data found"),
        (b'{"payload": 1}', "malformed attestation data: payload is not a string"),
        (b'{"payload": "abc"}', "malformed attestation data: illegal base64 data at input byte 0"),
        (
            b'{"payload": "e30=", "payloadType": []}',
            "malformed attestation data: payloadType is not a string",
        ),
        (
            b'{"payload": "e30=", "signatures": {}}',
            "malformed attestation data: signatures is not a list of at most 100",
        ),
        (
            b'{"payload": "e30=", "signatures": [1]}',
            "cannot create signed entity: a signature lacks its sig",
        ),
        (
            b'{"payload": "e30=", "signatures": [{"sig": "%"}]}',
            "cannot create signed entity: illegal base64 data at input byte 0",
        ),
    ],
)
def test_malformed_envelopes_say_how(document: bytes, reason: str) -> None:
    with pytest.raises(BadEvidence) as refusal:
        Envelope.parse(document)
    assert refusal.value.message == reason


def test_an_envelope_keeps_what_was_written() -> None:
    document = {
        "payloadType": IN_TOTO,
        "payload": "e30=",
        "signatures": [{"keyid": "k", "sig": "QUI="}],
    }
    envelope = Envelope.parse(json.dumps(document).encode())
    (signature,) = envelope.signatures
    assert (signature.keyid, signature.value, signature.encoded) == ("k", b"AB", "QUI=")
    assert envelope.signed_bytes == b"DSSEv1 28 application/vnd.in-toto+json 2 {}"


def statement(**members: Any) -> Statement:
    return Statement.parse(json.dumps({"_type": "t", "predicateType": "p", **members}).encode())


def test_subjects_are_matched_by_digest_alone() -> None:
    about = statement(
        subject=[{"name": "other", "digest": {"md5": "x"}}, {"digest": {"sha256": DIGEST.hex}}]
    )
    assert about.is_about(DIGEST)
    for subject in (
        None,
        [],
        {},
        "text",
        [None],
        [{"digest": DIGEST.hex}],
        [{"digest": {"sha256": DIGEST.hex.upper()}}],
        [{"digest": {"sha256": [DIGEST.hex]}}],
        [{"digest": {"sha512": DIGEST.hex}}],
        [{"digest": {"sha256": str(DIGEST)}}],
        [{"name": DIGEST.hex, "digest": {}}],
    ):
        assert not statement(subject=subject).is_about(DIGEST)


def test_a_sha512_image_matches_its_sha512_subject() -> None:
    digest = Digest.of(b"image", "sha512")
    assert statement(subject=[{"digest": {"sha512": digest.hex}}]).is_about(digest)


def test_statements_have_limits() -> None:
    with pytest.raises(BadEvidence, match="1025 subjects, more than 1024"):
        statement(subject=[{}] * (MAX_SUBJECTS + 1))
    digests = {str(n): "x" for n in range(MAX_SUBJECT_DIGESTS + 1)}
    with pytest.raises(BadEvidence, match="33 digests of a subject, more than 32"):
        statement(subject=[{"digest": digests}])


def test_any_predicate_is_kept_but_types_must_be_text() -> None:
    assert statement(predicate="text").document["predicate"] == "text"
    assert Statement.parse(b"{}").type == ""
    for raw in (b"[]", b'{"_type": 1}', b'{"predicateType": {}}', b"no"):
        with pytest.raises(BadEvidence, match="malformed attestation data"):
            Statement.parse(raw)


@pytest.mark.parametrize(
    ("predicate_type", "predicate", "expected"),
    [
        ("https://slsa.dev/provenance/v0.2", {"buildType": "b"}, "b"),
        ("https://slsa.dev/provenance/v1", {"buildDefinition": {"buildType": "b"}}, "b"),
        ("https://slsa.dev/provenance/v1", {"buildType": "b"}, None),
        ("https://slsa.dev/provenance/v1", {"buildDefinition": []}, None),
        ("https://slsa.dev/provenance/v0.2", {"buildType": 1}, None),
        ("https://slsa.dev/provenance/v0.2", "text", None),
        ("https://spdx.dev/Document", {"buildType": "b"}, None),
    ],
)
def test_build_types(predicate_type: str, predicate: Any, expected: str | None) -> None:
    found = statement(predicateType=predicate_type, predicate=predicate)
    assert build_type_of(found) == expected


def test_a_claim_must_name_the_image() -> None:
    check_claim(
        json.dumps({"critical": {"image": {"docker-manifest-digest": str(DIGEST)}}}).encode(),
        DIGEST,
    )
    for claim, found in (
        ({}, ""),
        ({"critical": None}, ""),
        ({"critical": {"image": {"docker-manifest-digest": "sha256:other"}}}, "sha256:other"),
        ({"Critical": {"image": {"docker-manifest-digest": str(DIGEST)}}}, ""),
    ):
        with pytest.raises(SignatureMismatch) as refusal:
            check_claim(json.dumps(claim).encode(), DIGEST)
        assert refusal.value.message == f"invalid or missing digest in claim: {found}"
    for payload in (b"no", b'{"critical": {"image": {"docker-manifest-digest": 1}}}'):
        with pytest.raises(BadEvidence, match="malformed signature payload"):
            check_claim(payload, DIGEST)
