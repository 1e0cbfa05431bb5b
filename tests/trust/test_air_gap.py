"""Validation where there is no network at all: nothing is routed, so nothing can even be refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import conforma
from acceptance.private_sigstore.cosign import provenance
from acceptance.private_sigstore.fulcio import Fulcio
from acceptance.private_sigstore.keyless_signer import KeylessSigner
from acceptance.private_sigstore.rekor import Rekor
from acceptance.private_sigstore.trusted_root import trusted_root
from acceptance.private_sigstore.tuf_repository import TufRepository
from conforma.oci.digest import Digest
from conforma.serve.images import Member, image_of, layer_of
from conforma.serve.registry import RegistryServer
from conforma.serve.store import Store

pytestmark = pytest.mark.slow
TITLE = "release/app"
RULES = """
package main

import rego.v1

# METADATA
# title: Has its settings
# custom:
#   short_name: settings
deny contains result if {
    files := ec.oci.image_files(input.image.ref, ["etc"])
    not files["etc/app.json"].good
    result := {"code": "main.settings", "msg": "The settings are not there"}
}

# METADATA
# title: Signed as this run asks for
# custom:
#   short_name: signed
deny contains result if {
    found := ec.sigstore.verify_image(input.image.ref, data.config.default_sigstore_opts)
    not found.success
    result := {"code": "main.signed", "msg": concat("; ", found.errors)}
}
"""
# Brings up loopback and nothing else, proves that nothing is routed, serves the
# registry of the closed site, and validates.
ISOLATED = """
import errno, fcntl, socket, struct, subprocess, sys
from pathlib import Path
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
for place in (("192.0.2.1", 443), ("8.8.8.8", 53)):
    with socket.socket() as probe:
        assert probe.connect_ex(place) == errno.ENETUNREACH, "there is a network here"
from conforma.serve.registry import RegistryServer
store, port, *command = sys.argv[1:]
with RegistryServer(Path(store), port=int(port)):
    sys.exit(subprocess.run(command).returncode)
"""


def isolation() -> list[str]:
    """The command that starts another without a network; skips the test where there is none."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which("unshare") is None:
            break
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("needs util-linux's unshare and the right to make network namespaces")


@dataclass
class Site:
    """A release, what is trusted, and the registry of a closed site, as files."""

    directory: Path
    trusted: bytes
    port: int
    reference: str
    layer: Digest

    def command(self, *flags: str) -> list[str]:
        return [
            sys.executable, "-m", "conforma", "validate", "image", "--image", self.reference,
            "--policy", json.dumps({"sources": [{"policy": [str(self.directory / "rules")]}]}),
            "--certificate-oidc-issuer", "https://issuer.test",
            "--certificate-identity", "https://id.test/me",
            "--cache-dir", str(self.directory / "cache"), "--output", "json",
            "--retry-max-retry", "0", *flags,
        ]  # fmt: skip

    def environment(self, **more: str) -> dict[str, str]:
        place = str(Path(conforma.__file__).parents[1])
        kept = {name: os.environ[name] for name in ("CONFORMA_ENGINE",) if name in os.environ}
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory), "PYTHONPATH": place,
                **kept, **more}  # fmt: skip

    def validate_here(self, **more: str) -> None:
        """Validate with a network, so that caches hold what the closed site needs."""
        with RegistryServer(self.directory / "store", port=self.port):
            done = subprocess.run(
                self.command(), env=self.environment(**more), capture_output=True, check=False
            )
        assert done.returncode == 0, done.stderr.decode()

    def lose_layer(self) -> None:
        """Take the image's layer out of the registry: from now on only the cache has it."""
        (blob,) = (self.directory / "store").rglob(self.layer.hex)
        blob.unlink()

    def validate_isolated(self, **more: str) -> tuple[int, dict[str, Any], str]:
        """Validate without one: exit status, report, and standard error."""
        isolated = [sys.executable, "-c", ISOLATED, str(self.directory / "store"), str(self.port)]
        done = subprocess.run(
            [*isolation(), *isolated, *self.command()],
            env=self.environment(**more),
            capture_output=True,
            check=False,
        )
        report = json.loads(done.stdout) if done.stdout else {}
        return done.returncode, report, done.stderr.decode()


@pytest.fixture(params=["tag", "bundle"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    isolation()
    fulcio, log = Fulcio(), Rekor()
    with RegistryServer(tmp_path / "probe") as probe:
        port = probe.port
    store = Store(tmp_path / "store")
    layer = layer_of([Member("etc/app.json", b'{"good": true}')])
    digest = image_of([layer]).put(store, TITLE, "1.0")
    signer = KeylessSigner(store, TITLE, log, fulcio.issue(), request.param)
    signer.sign(digest)
    signer.attest(digest, provenance(str(digest)))
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "main.rego").write_text(RULES)
    trusted = trusted_root(fulcio, log)
    (tmp_path / "trusted_root.json").write_bytes(trusted)
    return Site(tmp_path, trusted, port, f"127.0.0.1:{port}/{TITLE}@{digest}", layer.digest)


def test_a_trusted_root_file_and_the_cache_suffice(site: Site) -> None:
    trusted = {"CONFORMA_TRUSTED_ROOT": str(site.directory / "trusted_root.json")}
    site.validate_here(**trusted)
    site.lose_layer()
    status, report, err = site.validate_isolated(**trusted)
    assert status == 0, err
    (component,) = report["components"]
    assert component["success"] is True
    assert component["signatures"]
    assert component["signatures"][0]["certificate"].startswith("-----BEGIN CERTIFICATE-----")


def test_so_does_what_the_last_refresh_left(site: Site) -> None:
    (site.directory / "root.json").write_bytes(b"")
    with TufRepository(site.directory / "tuf", site.trusted) as tuf:
        (site.directory / "root.json").write_bytes(tuf.first_root)
        known = {
            "TUF_ROOT": str(site.directory / "tuf-cache"),
            "TUF_MIRROR": tuf.url,
            "TUF_ROOT_JSON": str(site.directory / "root.json"),
        }
        site.validate_here(**known)
        # Still running, but out of reach from where there is no network.
        asked = len(tuf.requests)
        status, report, err = site.validate_isolated(**known)
        assert len(tuf.requests) == asked
    assert status == 0, err
    assert report["components"][0]["success"] is True


def test_without_either_nothing_is_decided(site: Site) -> None:
    status, report, err = site.validate_isolated()
    assert status == 3
    (component,) = report["components"]
    assert component["success"] is False
    assert "Sigstore trust root of https://tuf-repo-cdn.sigstore.dev" in component["error"]
    assert "https://tuf-repo-cdn.sigstore.dev" in err
