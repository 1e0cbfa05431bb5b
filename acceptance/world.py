"""The world of one scenario: a registry, a git server, keys, images, a policy, and what was run."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import trustme

import conforma
from acceptance.git_server import GitServer
from conforma.oci.digest import Digest
from conforma.serve.images import Image, ImageIndex, Layer, Member, image_of, layer_of
from conforma.serve.registry import RegistryServer
from conforma.serve.signing import Signer
from conforma.serve.signing_key import SigningKey
from conforma.serve.statements import Build, provenance_v1
from conforma.serve.transparency import TransparencyLog

LIMIT = 120
"""Seconds a command may take before the scenario fails."""


@dataclass(frozen=True, slots=True)
class Published:
    """An image under a name of the scenario."""

    name: str
    repository: str
    digest: Digest
    host: str

    @property
    def reference(self) -> str:
        """How the command line names it."""
        return f"{self.host}/{self.repository}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str
    report: dict[str, Any] | None

    def component(self, name: str) -> dict[str, Any]:
        """What the report says about a component."""
        assert self.report is not None, f"no report was written\n{self.stderr}"
        found = [c for c in self.report["components"] if c["name"] == name]
        assert len(found) == 1, f"{name} occurs {len(found)} times in the report"
        return found[0]

    def codes(self, name: str, kind: str) -> list[str]:
        """The codes of a component's violations, warnings or successes."""
        results = self.component(name).get(kind, [])
        return [result.get("metadata", {}).get("code", "") for result in results]


@dataclass
class World:
    """Everything is made when it is first needed, and gone when the scenario ends."""

    directory: Path
    key: SigningKey = field(default_factory=SigningKey.generate)
    other_key: SigningKey = field(default_factory=SigningKey.generate)
    images: dict[str, Published] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    policy_sources: list[str] = field(default_factory=list)
    data_sources: list[str] = field(default_factory=list)
    rule_data: dict[str, Any] = field(default_factory=dict)
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    running: list[subprocess.Popen[str]] = field(default_factory=list)
    noted: dict[str, tuple[int, int]] = field(default_factory=dict)
    surroundings: tuple[str, ...] = ()
    """Arguments before those of the command, which arrange what it runs in."""
    log: TransparencyLog | None = None
    _closing: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """End what still runs and stop the servers."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self._closing.close()

    @cached_property
    def registry(self) -> RegistryServer:
        """The registry of the scenario."""
        return self._closing.enter_context(RegistryServer())

    @cached_property
    def authority(self) -> trustme.CA:
        """Issues the certificates of the scenario's servers; the command trusts it."""
        authority = trustme.CA()
        file = self.directory / "ca.pem"
        authority.cert_pem.write_to_path(file)
        self.environment["SSL_CERT_FILE"] = str(file)
        return authority

    @cached_property
    def git(self) -> GitServer:
        """Git over HTTPS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1").configure_cert(context)
        server = GitServer(self.directory / "git", context)
        self._closing.callback(server.close)
        return server

    @property
    def outcome(self) -> Outcome:
        """The command that ended last."""
        return self.outcomes[-1]

    @property
    def cache_directory(self) -> Path:
        """Where the command keeps layers."""
        return self.directory / "cache"

    def publish(
        self,
        name: str,
        content: Image | ImageIndex | None = None,
        *,
        signed: SigningKey | None = None,
        attested: SigningKey | None = None,
        digests: tuple[Digest, ...] = (),
    ) -> Published:
        """Push an image, signed and attested with the given keys, ``digests`` along with it."""
        repository = f"release/{name}"
        content = content or image_of([own_layer(name)], labels={"name": name})
        digest = content.put(self.registry.store, repository)
        published = Published(name, repository, digest, self.registry.host)
        for one in (digest, *digests):
            if signed is not None:
                Signer(self.registry.store, repository, signed, self.log).sign(one)
            if attested is not None:
                build = Build(f"{self.registry.host}/{repository}", one)
                signer = Signer(self.registry.store, repository, attested, self.log)
                signer.attest(one, provenance_v1(build))
        self.images[name] = published
        return published

    def write_policy(self) -> Path:
        """The policy configuration as the steps have described it."""
        if self.rules:
            rules = self.directory / "rules"
            rules.mkdir(exist_ok=True)
            for file, text in self.rules.items():
                (rules / file).write_text(text, encoding="utf-8")
        sources = self.policy_sources or [str(self.directory / "rules")]
        group: dict[str, Any] = {"policy": sources}
        if self.data_sources:
            group["data"] = self.data_sources
        if self.rule_data:
            group["ruleData"] = self.rule_data
        if self.include or self.exclude:
            group["config"] = {"include": self.include or ["*"], "exclude": self.exclude}
        path = self.directory / "policy.json"
        path.write_text(json.dumps({"sources": [group]}), encoding="utf-8")
        return path

    def write_snapshot(self) -> Path:
        """All images of the scenario as the components of one release."""
        components = [
            {"name": image.name, "containerImage": image.reference}
            for image in self.images.values()
        ]
        path = self.directory / "snapshot.json"
        path.write_text(json.dumps({"application": "release", "components": components}))
        return path

    def arguments(self, *options: str, report: Path) -> list[str]:
        """``validate image`` with the scenario's policy and key."""
        public_key = self.directory / "cosign.pub"
        public_key.write_text(self.key.public_pem)
        checks = [] if self.log is not None else ["--ignore-rekor"]
        if self.log is not None:
            log_key = self.directory / "log.pub"
            log_key.write_text(self.log.key.public_pem)
            self.environment["SIGSTORE_REKOR_PUBLIC_KEY"] = str(log_key)
        return [
            "validate",
            "image",
            f"--policy={self.write_policy()}",
            f"--public-key={public_key}",
            "--show-successes",
            "--output=text",
            f"--output=json={report}",
            *checks,
            *options,
        ]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the installed command."""
        process = subprocess.Popen(
            [*self.surroundings, sys.executable, "-m", "conforma", *arguments],
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], report: Path) -> Outcome:
        """Wait for a command and keep what it printed and reported."""
        stdout, stderr = process.communicate(timeout=LIMIT)
        document = json.loads(report.read_text()) if report.exists() else None
        outcome = Outcome(process.returncode, stdout, stderr, document)
        self.outcomes.append(outcome)
        return outcome

    def validate(self, *options: str) -> Outcome:
        """Run ``validate image`` to its end."""
        report = self.new_report()
        return self.finish(self.start(*self.arguments(*options, report=report)), report)

    def new_report(self) -> Path:
        """A file name no earlier run has used."""
        taken = len(list(self.directory.glob("report-*.name")))
        (self.directory / f"report-{taken}.name").touch()
        return self.directory / f"report-{taken}.json"

    def _environment(self) -> Mapping[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory),
            "PYTHONPATH": str(Path(conforma.__file__).parents[1]),
            "EC_CACHE_DIR": str(self.cache_directory),
            **{
                n: v
                for n, v in os.environ.items()
                if n in ("CONFORMA_ENGINE", "COVERAGE_PROCESS_START")
            },
            **self.environment,
        }


def own_layer(name: str, *more: Member) -> Layer:
    """A layer that no other image has."""
    return layer_of([Member(f"app/{name}", name.encode() * 100), *more])
