"""``--rekor-url``: a release whose signatures came without log entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from acceptance.private_sigstore.cosign import provenance
from acceptance.private_sigstore.fulcio import public_pem
from acceptance.private_sigstore.rekor_server import RekorServer
from acceptance.private_sigstore.service import Answer
from conforma.serve.signing import add_tag_layer
from conforma.trust.evidence import SIGNATURE
from tests.cli.shop import Outcome, Shop
from tests.trust.lab import Lab

pytestmark = pytest.mark.slow


@pytest.fixture
def lab(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A log that knows the signatures of the one image in the shop; nothing is attached to them."""
    lab = Lab()
    digest = shop.publish("web", signed=False, attested=False)
    for suffix, layer in (
        ("sig", lab.signature(digest)),
        ("att", lab.attestation(provenance(str(digest)), kind="dsse")),
    ):
        notes = {SIGNATURE: layer.annotations[SIGNATURE]}
        store = shop.server.store
        add_tag_layer(store, "shop/web", digest, suffix, layer.content, layer.media_type, notes)
    (tmp_path / "rekor.pub").write_text(public_pem(lab.log.key))
    monkeypatch.setenv("SIGSTORE_REKOR_PUBLIC_KEY", str(tmp_path / "rekor.pub"))
    return lab


def validate(shop: Shop, lab: Lab, *args: str) -> Outcome:
    return shop.validate(*args, public_key=lab.pem, ignore_rekor="false")


def test_the_log_is_asked_once_for_each_signature(shop: Shop, lab: Lab) -> None:
    with RekorServer(lab.log) as log:
        done = validate(shop, lab, f"--rekor-url={log.url}")
        assert (done.status, done.err) == (0, "")
        assert [query["entries"][0]["kind"] for query in log.queries] == ["hashedrekord", "dsse"]


def test_without_the_log_nothing_is_signed(shop: Shop, lab: Lab) -> None:
    done = validate(shop, lab)
    assert done.status == 1
    assert "rekor client not provided for online verification" in done.out


def test_a_log_that_is_down_decides_nothing(shop: Shop, lab: Lab) -> None:
    with RekorServer(lab.log) as log:
        log.faults += [Answer(503)] * 10
        done = validate(shop, lab, f"--rekor-url={log.url}")
    assert done.status == 3
    assert "searching log query" in done.component("web")["error"]
    assert "violations" not in done.component("web")


def test_offline_the_log_is_not_asked(shop: Shop, lab: Lab) -> None:
    with RekorServer(lab.log) as log:
        done = validate(shop, lab, f"--rekor-url={log.url}", "--offline")
        assert done.status == 3
        assert log.queries == []
