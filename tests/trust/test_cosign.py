"""What real cosign signs with a private Sigstore, verified here, and what we make, verified by it.

Needs the program: ``cosign`` on the PATH, or named by ``CONFORMA_TEST_COSIGN``.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from acceptance.private_sigstore.cosign import provenance
from acceptance.private_sigstore.fulcio import public_pem
from acceptance.private_sigstore.fulcio_server import FulcioServer
from acceptance.private_sigstore.keyless_signer import KeylessSigner
from acceptance.private_sigstore.rekor_server import RekorServer
from acceptance.private_sigstore.trusted_root import trusted_root
from conforma.cancellation import Cancellation
from conforma.errors import NoMatchingSignature
from conforma.oci.options import RegistryOptions
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.serve.images import image_of
from conforma.serve.registry import RegistryServer
from conforma.trust.evidence import REKOR_BUNDLE
from conforma.trust.identity import Identity
from conforma.trust.keys import PublicKey
from conforma.trust.rekor_search import query
from conforma.trust.root import TrustRoot
from conforma.trust.trust_policy import TrustPolicy
from conforma.trust.verify import Verifier
from tests.trust.lab import ME, P256, Lab

pytestmark = pytest.mark.slow
COSIGN = os.environ.get("CONFORMA_TEST_COSIGN") or shutil.which("cosign")
if COSIGN is None:
    pytest.skip("there is no cosign on this machine", allow_module_level=True)
SIGNING_CONFIG = "application/vnd.dev.sigstore.signingconfig.v0.2+json"


@dataclass
class Workshop:
    """A private Sigstore with its services, a registry with one image, and cosign."""

    directory: Path
    lab: Lab
    fulcio: FulcioServer
    log: RekorServer
    server: RegistryServer
    registry: Registry
    image: Reference

    def cosign(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(COSIGN), *arguments],
            cwd=self.directory,
            env={
                "HOME": str(self.directory),
                "PATH": "",
                "COSIGN_PASSWORD": "",
                "COSIGN_YES": "true",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def sign(self, *, key: bool, layout: str, logged: bool) -> None:
        """Let cosign sign the image and a provenance of it."""
        services = self._services(layout, key=key, logged=logged)
        signer = ["--key", "cosign.key"] if key else ["--identity-token", token()]
        (self.directory / "slsa.json").write_text(json.dumps(provenance("sha256:0")["predicate"]))
        predicate = ["--predicate", "slsa.json", "--type", "slsaprovenance"]
        for command in (["sign"], ["attest", *predicate]):
            done = self.cosign(
                *command, *signer, *services, "--allow-http-registry", str(self.image)
            )
            assert done.returncode == 0, done.stderr

    def _services(self, layout: str, *, key: bool, logged: bool) -> list[str]:
        trusted = ["--trusted-root", "trusted_root.json"]
        if layout == "tag":
            services = ["--new-bundle-format=false", "--use-signing-config=false"]
            if not key:
                services += ["--fulcio-url", self.fulcio.url]
            if logged:
                return [*trusted, *services, "--rekor-url", self.log.url]
            return [*services, "--tlog-upload=false"]
        document: dict[str, Any] = {"mediaType": SIGNING_CONFIG, "tsaConfig": {}}
        document["caUrls"] = [service(self.fulcio.url)]
        document["oidcUrls"] = [service("http://127.0.0.1:1")]
        document["rekorTlogConfig"] = {"selector": "ANY"} if logged else {}
        document["rekorTlogUrls"] = [service(self.log.url)] if logged else []
        (self.directory / "signing.json").write_text(json.dumps(document))
        return [*(trusted if logged else []), "--signing-config", "signing.json"]

    def verifier(self, policy: TrustPolicy) -> Verifier:
        root = TrustRoot.parse((self.directory / "trusted_root.json").read_bytes(), "it")
        return Verifier(self.registry, policy, root, environ={})


def service(url: str) -> dict[str, Any]:
    start = {"start": "2020-01-01T00:00:00Z"}
    return {"url": url, "majorApiVersion": 1, "validFor": start, "operator": "private.test"}


def token() -> str:
    """What an OpenID provider would issue; our authority believes it without a signature."""
    now = int(time.time())
    claims = {"iss": ME.issuer, "sub": ME.subject, "aud": "sigstore", "iat": now, "exp": now + 600}
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, claims)]
    encoded = (base64.urlsafe_b64encode(part).rstrip(b"=") for part in (*parts, bytes(256)))
    return b".".join(encoded).decode()


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    lab, cancellation = Lab(), Cancellation()
    (tmp_path / "trusted_root.json").write_bytes(trusted_root(lab.fulcio, lab.log))
    with (
        FulcioServer(lab.fulcio) as fulcio,
        RekorServer(lab.log) as log,
        RegistryServer() as server,
        Registry(RegistryOptions(environment={"PATH": ""}), cancellation) as registry,
    ):
        digest = image_of([]).put(server.store, "app", "1.0")
        image = Reference.parse(f"{server.host}/app@{digest}")
        yield Workshop(tmp_path, lab, fulcio, log, server, registry, image)
    cancellation.close()


def check(workshop: Workshop, good: TrustPolicy, bad: TrustPolicy) -> None:
    (signature,) = workshop.verifier(good).image_signatures(workshop.image)
    (attestation,) = workshop.verifier(good).attestations(workshop.image)
    assert attestation.predicate_type == "https://slsa.dev/provenance/v0.2"
    for found in (signature, *attestation.signatures):
        assert found.voucher is not None
        assert (found.voucher.log_index is None) == good.ignore_rekor
        assert found.voucher.identity == ("" if good.public_key else ME.subject)
    for ask in (workshop.verifier(bad).image_signatures, workshop.verifier(bad).attestations):
        with pytest.raises(NoMatchingSignature):
            ask(workshop.image)


@pytest.mark.parametrize("logged", [True, False], ids=["logged", "unlogged"])
@pytest.mark.parametrize("layout", ["tag", "bundle"])
def test_keys(workshop: Workshop, layout: str, logged: bool) -> None:
    assert workshop.cosign("generate-key-pair").returncode == 0
    workshop.sign(key=True, layout=layout, logged=logged)
    key = PublicKey.load(str(workshop.directory / "cosign.pub"))
    good = TrustPolicy(key, ignore_rekor=not logged)
    check(workshop, good, replace(good, public_key=PublicKey(public_pem(P256))))
    if not logged:
        with pytest.raises(NoMatchingSignature):
            workshop.verifier(replace(good, ignore_rekor=False)).image_signatures(workshop.image)


@pytest.mark.parametrize("layout", ["tag", "bundle"])
def test_keyless(workshop: Workshop, layout: str) -> None:
    workshop.sign(key=False, layout=layout, logged=True)
    assert len(workshop.fulcio.issued) == 2
    good = TrustPolicy(identity=ME)
    check(workshop, good, TrustPolicy(identity=Identity(ME.issuer, "https://id.test/you")))


def test_we_ask_the_log_for_what_cosign_would_have_proposed(workshop: Workshop) -> None:
    workshop.sign(key=False, layout="tag", logged=True)
    evidence = workshop.verifier(TrustPolicy(identity=ME)).evidence
    layers = (*evidence.signatures(workshop.image), *evidence.attestations(workshop.image))
    assert len(workshop.log.queries) == len(layers) == 2
    for layer, proposed in zip(layers, workshop.log.queries, strict=True):
        signature = base64.b64decode(layer.annotations["dev.cosignproject.cosign/signature"])
        pem = layer.annotations["dev.sigstore.cosign/certificate"]
        assert REKOR_BUNDLE in layer.annotations
        spec = {name: value for name, value in proposed["spec"].items() if value is not None}
        ours = json.loads(query(layer, signature, pem))["entries"]
        assert {**proposed, "spec": spec} in ours


@pytest.mark.parametrize("layout", ["tag", "bundle"])
def test_cosign_accepts_what_our_sigstore_makes(workshop: Workshop, layout: Any) -> None:
    lab, digest = workshop.lab, workshop.image.digest
    assert digest is not None
    signer = KeylessSigner(workshop.server.store, "app", lab.log, lab.fulcio.issue(), layout)
    signer.sign(digest)
    signer.attest(digest, provenance(str(digest)))
    flags = ["--trusted-root", "trusted_root.json", "--allow-http-registry",
             "--certificate-oidc-issuer", ME.issuer]  # fmt: skip
    flags += ["--new-bundle-format=false"] if layout == "tag" else []
    for command in (["verify"], ["verify-attestation", "--type", "slsaprovenance"]):
        for subject, accepted in ((ME.subject, True), ("https://id.test/you", False)):
            done = workshop.cosign(
                *command, *flags, "--certificate-identity", subject, str(workshop.image)
            )
            assert (done.returncode == 0) is accepted, done.stderr
