"""Logs that sign with other keys than ECDSA P-256: found in a trusted root, or as single files."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from acceptance.private_sigstore.fulcio import CTLog, Fulcio, public_pem
from acceptance.private_sigstore.log_signer import LogSigner
from acceptance.private_sigstore.rekor import Rekor, b64
from acceptance.private_sigstore.trusted_root import trusted_root
from acceptance.private_sigstore.tsa import TimestampAuthority
from conforma.errors import NotInLog
from conforma.trust.root import Authority, LogKey, TrustRoot, Validity, by_id
from conforma.trust.root_sources import RootSource
from tests.trust.lab import Lab, check_bundle, check_layer

P384 = ec.generate_private_key(ec.SECP384R1())
KINDS = {
    "p256": lambda: LogSigner(),
    "p384-sha384": lambda: LogSigner(P384, "sha384"),
    "p384-sha256": lambda: LogSigner(P384, "sha256"),
    "p521-sha512": lambda: LogSigner(ec.generate_private_key(ec.SECP521R1()), "sha512"),
    "ed25519": lambda: LogSigner(ed25519.Ed25519PrivateKey.generate()),
    "rsa": lambda: LogSigner(rsa.generate_private_key(65537, 2048)),
}


@pytest.fixture(params=KINDS)
def lab(request: pytest.FixtureRequest) -> Lab:
    """A Sigstore both of whose logs sign with the same kind of key.

    ``cryptography`` reads no certificate with an Ed25519 SCT, which RFC 6962
    does not know either.
    """
    signer = KINDS[request.param]()
    stamper = LogSigner() if request.param == "ed25519" else KINDS[request.param]()
    ct_log = CTLog(stamper.key, stamper.digest)
    return Lab(log=Rekor(signer=signer), fulcio=Fulcio(ct_log=ct_log))


def check_all(lab: Lab, root: TrustRoot) -> None:
    changes = {name: getattr(root, name) for name in ("logs", "ct_logs", "authorities")}
    leaf = lab.fulcio.issue()
    check_layer(lab, lab.signature(), lab.by_key(), **changes)
    check_layer(lab, lab.signature(leaf=leaf), lab.keyless(), **changes)
    check_bundle(lab, lab.bundle(leaf=leaf), lab.keyless(), **changes)


def test_a_trusted_root_says_how_its_logs_sign(lab: Lab) -> None:
    root = TrustRoot.parse(trusted_root(lab.fulcio, lab.log), "it")
    assert root.logs[lab.log.log_id].digests[0] == lab.log.signer.digest
    check_all(lab, root)


def test_single_key_files_of_any_kind(lab: Lab, tmp_path: Path) -> None:
    files = {
        "SIGSTORE_REKOR_PUBLIC_KEY": public_pem(lab.log.key),
        "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE": public_pem(lab.fulcio.ct_log.key),
        "SIGSTORE_ROOT_FILE": lab.fulcio.issue().chain_pem,
    }
    environ = {}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        environ[name] = str(tmp_path / name)
    check_all(lab, RootSource(lab.keyless(), environ)())


def test_a_log_that_states_its_hash_function_may_use_no_other() -> None:
    lab = Lab(log=Rekor(signer=LogSigner(P384, "sha256")))
    strict = LogKey(
        P384.public_key(), lab.log.log_id, Validity(lab.fulcio.started), True, ("sha384",)
    )
    with pytest.raises(NotInLog, match="unable to verify SET"):
        check_layer(lab, lab.signature(), lab.by_key(), logs=by_id([strict]))


def test_a_log_with_a_key_of_tomorrow_is_left_out_and_spoils_nothing() -> None:
    lab = Lab()
    document = json.loads(trusted_root(lab.fulcio, lab.log))
    # id-ML-DSA-44 with a key that is none.
    strange = {"rawBytes": "MBAwCwYJYIZIAWUDBAMRAwEA", "keyDetails": "ML_DSA_44"}
    document["tlogs"].insert(0, {"publicKey": strange, "logId": {"keyId": "AAAA"}})
    root = TrustRoot.parse(json.dumps(document).encode(), "it")
    assert set(root.logs) == {lab.log.log_id}
    check_all(lab, root)


def test_a_log_without_promises_must_have_been_in_use_at_the_signed_time() -> None:
    lab, tsa = Lab(), TimestampAuthority()
    document = lab.bundle(leaf=lab.fulcio.issue(), kind="v2", entry={"promise": False})
    stamp = tsa.stamp(b64decode(document["dsseEnvelope"]["signatures"][0]["sig"]))
    document["verificationMaterial"]["timestampVerificationData"] = {
        "rfc3161Timestamps": [{"signedTimestamp": b64(stamp)}]
    }
    past = datetime.now(UTC) - timedelta(days=20)
    for validity, reason in (
        (Validity(past), ""),
        (Validity(past, past + timedelta(days=1)), "not valid at payload integrated time"),
        (Validity(None), "rekor validity period start time not set"),
    ):
        logs = by_id([LogKey(lab.log.key.public_key(), lab.log.log_id, validity, dated=True)])
        trusted = {"logs": logs, "timestamp_authorities": (Authority(tsa.chain),)}
        if reason:
            with pytest.raises(NotInLog, match=reason):
                check_bundle(lab, document, lab.keyless(), **trusted)
        else:
            check_bundle(lab, document, lab.keyless(), **trusted)
