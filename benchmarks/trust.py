"""Verifying a release signed by one identity: refreshes of TUF, chains built, who was asked.

A private Sigstore issues the certificates (one a build, so several components
share one), half of the images have cosign's tags and half bundles. The command
runs in a child process that notes every address it connects to and counts
chains and signature checks. Arguments: ``components=200 certificates=10
workers=8 rounds=3``. The second line of figures is with one certificate for
each component, the third with ``--ignore-rekor --public-key`` and key
signatures, as a floor: the same requests without Sigstore.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from acceptance.private_sigstore.cosign import provenance
from acceptance.private_sigstore.fulcio import Fulcio
from acceptance.private_sigstore.keyless_signer import KeylessSigner
from acceptance.private_sigstore.rekor import Rekor
from acceptance.private_sigstore.trusted_root import trusted_root
from acceptance.private_sigstore.tuf_repository import TufRepository
from benchmarks.measure import table
from conforma.serve.images import image_of
from conforma.serve.registry import RegistryServer
from conforma.serve.signing import Signer
from conforma.serve.signing_key import SigningKey

ISSUER, SUBJECT = "https://issuer.test", "https://id.test/me"
RULES = """
package main

import rego.v1

# METADATA
# title: Referenced
# custom:
#   short_name: referenced
deny contains result if {
    not input.image.ref
    result := {"code": "main.referenced", "msg": "There is no image"}
}
"""


# Runs the command and writes down what it did.
WATCHED = """
import json, sys, time
places = {}
def seen(event, details):
    if event == "socket.connect" and isinstance(details[1], tuple):
        name = f"{details[1][0]}:{details[1][1]}"
        places[name] = places.get(name, 0) + 1
sys.addaudithook(seen)
from conforma.trust import certificate, verify
counts = {"chains": 0, "evidence": 0}
def counted(module, name, counter):
    inner = getattr(module, name)
    def outer(*args, **kwargs):
        counts[counter] += 1
        return inner(*args, **kwargs)
    setattr(module, name, outer)
counted(certificate, "_chain", "chains")
counted(verify, "verify_layer", "evidence")
counted(verify, "verify_bundle", "evidence")
from conforma.cli.root import run
status = run(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump({"status": status, "places": places, **counts}, file)
sys.exit(status)
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of the benchmark."""

    components: int = 200
    certificates: int = 10
    workers: int = 8
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run of the command did."""

    seconds: float
    chains: int
    evidence: int
    tuf_requests: tuple[str, ...]
    registry_requests: int
    elsewhere: tuple[str, ...]


class Bench:
    """A registry, a TUF repository, and the directory of one benchmark."""

    def __init__(self, directory: Path, options: Options) -> None:
        self.directory, self.options = directory, options
        self.fulcio, self.log = Fulcio(), Rekor()
        self.server = RegistryServer()
        self.tuf = TufRepository(directory / "tuf", trusted_root(self.fulcio, self.log))
        (directory / "root.json").write_bytes(self.tuf.first_root)
        (directory / "rules").mkdir()
        (directory / "rules" / "main.rego").write_text(RULES)
        self.key = SigningKey.generate()
        (directory / "key.pub").write_text(self.key.public_pem)

    def release(self, name: str, certificates: int) -> Path:
        """A snapshot of signed images; with no certificates they are signed with the key."""
        leaves = [self.fulcio.issue() for _ in range(certificates)]
        components = []
        for number in range(self.options.components):
            image = image_of([], labels={"component": f"{name} {number}"})
            digest = image.put(self.server.store, name, f"v{number}")
            if leaves:
                leaf = leaves[number % len(leaves)]
                layout: Any = ("tag", "bundle")[number // len(leaves) % 2]
                signer: Any = KeylessSigner(self.server.store, name, self.log, leaf, layout)
            else:
                signer = Signer(self.server.store, name, self.key)
            signer.sign(digest)
            signer.attest(digest, provenance(str(digest)))
            reference = f"{self.server.host}/{name}@{digest}"
            components.append({"name": f"c{number}", "containerImage": reference})
        snapshot = self.directory / f"{name}.json"
        snapshot.write_text(json.dumps({"components": components}))
        return snapshot

    def run(self, snapshot: Path, *flags: str) -> Figures:
        """Validate with an empty TUF cache."""
        facts, cache = self.directory / "facts.json", tempfile.mkdtemp(dir=self.directory)
        environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.directory),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "TUF_ROOT": cache,
            "TUF_MIRROR": self.tuf.url,
            "TUF_ROOT_JSON": str(self.directory / "root.json"),
        }
        arguments = [
            "validate", "image", "--images", str(snapshot), "--no-cache", "--output", "json",
            "--policy", json.dumps({"sources": [{"policy": [str(self.directory / "rules")]}]}),
            "--workers", str(self.options.workers), *flags,
        ]  # fmt: skip
        asked, read = len(self.tuf.requests), len(list(self.server.log))
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, str(facts), *arguments],
            env=environ,
            capture_output=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode()[-2000:] + done.stdout.decode()[:2000])
        found = json.loads(facts.read_bytes())
        known = {self.server.host, self.tuf.url.removeprefix("http://")}
        return Figures(
            seconds,
            found["chains"],
            found["evidence"],
            tuple(self.tuf.requests[asked:]),
            len(list(self.server.log)) - read,
            tuple(sorted(set(found["places"]) - known)),
        )

    def measured(self, title: str, snapshot: Path, chains: int, *flags: str) -> None:
        """Print the figures of several runs, and stop if they are not what is promised."""
        runs = [self.run(snapshot, *flags) for _ in range(self.options.rounds)]
        first = runs[0]
        refreshes = sum("timestamp.json" in path for path in first.tuf_requests)
        wanted = 1 if chains else 0
        seconds = median(run.seconds for run in runs)
        count = self.options.components
        table(
            title,
            [
                ("components", str(count), ""),
                ("refreshes of the TUF repository", str(refreshes), f"{wanted}"),
                ("requests to it", str(len(first.tuf_requests)), ""),
                ("chains built", str(first.chains), f"{chains}, one a certificate"),
                ("signatures and attestations verified", str(first.evidence), f"{2 * count}"),
                ("requests to the registry", str(first.registry_requests), ""),
                ("other addresses connected to", str(len(first.elsewhere)), "0"),
                ("whole command", f"{seconds:.2f} s", f"{1000 * seconds / count:.1f} ms each"),
            ],
        )
        for run in runs:
            assert (run.chains, run.elsewhere) == (chains, ()), run
            assert sum("timestamp.json" in path for path in run.tuf_requests) == wanted, run

    def close(self) -> None:
        """End both servers."""
        self.tuf.close()
        self.server.__exit__(None, None, None)


def main(arguments: list[str]) -> None:
    """Run the benchmark."""
    options = Options(**{k: int(v) for k, _, v in (a.partition("=") for a in arguments)})
    keyless = ["--certificate-oidc-issuer", ISSUER, "--certificate-identity", SUBJECT]
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(Path(place), options)
        bench.server.__enter__()
        try:
            shared = bench.release("shared", options.certificates)
            single = bench.release("single", options.components)
            keyed = bench.release("keyed", 0)
            title = f"One identity, {options.certificates} certificates"
            bench.measured(title, shared, options.certificates, *keyless)
            title = "One identity, a certificate for each component"
            bench.measured(title, single, options.components, *keyless)
            key = ["--public-key", str(bench.directory / "key.pub"), "--ignore-rekor"]
            bench.measured("A key, no log: the floor", keyed, 0, *key)
        finally:
            bench.close()
