"""A small release in a real registry on loopback, and the program run on it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from conforma.cli.root import run
from conforma.oci.digest import Digest
from conforma.serve.images import Image, Member, image_of, layer_of
from conforma.serve.registry import RegistryServer
from conforma.serve.signing import Signer
from conforma.serve.signing_key import SigningKey
from conforma.serve.statements import Build, provenance_v02, provenance_v1

RULES = """
package main

import rego.v1

# METADATA
# title: No debug labels
# description: Images must not be built for debugging.
# custom:
#   short_name: no_debug
#   solution: Build it again.
deny contains result if {
    input.image.config.Labels.debug == "true"
    result := {"code": "main.no_debug", "msg": "Built for debugging"}
}

# METADATA
# title: Named
# custom:
#   short_name: named
warn contains result if {
    not input.component_name
    result := {"code": "main.named", "msg": "Has no name"}
}
"""


@dataclass
class Outcome:
    """How a run of the program ended."""

    status: int
    out: str
    err: str

    @property
    def lasting(self) -> str:
        """The text report without its last line, which tells what the cache saved this time."""
        return re.sub(r"^Cache: .*\n\Z", "", self.out, flags=re.MULTILINE)

    @property
    def report(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document

    def component(self, name: str) -> dict[str, Any]:
        (found,) = (c for c in self.report["components"] if c["name"] == name)
        return dict(found)


@dataclass
class Shop:
    """The registry, a key, a policy, and what was published so far."""

    NO_POLICY: ClassVar[str] = "--policy is left out"

    server: RegistryServer
    directory: Path
    capture: pytest.CaptureFixture[str]
    key: SigningKey = field(default_factory=SigningKey.generate)
    components: list[dict[str, Any]] = field(default_factory=list)
    images: dict[str, Image] = field(default_factory=dict)

    def image(self, name: str, labels: Mapping[str, str] | None = None) -> Image:
        layer = layer_of([Member(f"etc/{name}", name.encode())])
        return image_of([layer], labels=labels or {"name": name})

    def publish(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        signed: bool = True,
        attested: bool = True,
        v1: bool = False,
    ) -> Digest:
        image = self.image(name, labels)
        digest = image.put(self.server.store, f"shop/{name}", "1.0")
        signer = Signer(self.server.store, f"shop/{name}", self.key)
        if signed:
            signer.sign(digest)
        if attested:
            build = Build(f"{self.server.host}/shop/{name}", digest)
            signer.attest(digest, provenance_v1(build) if v1 else provenance_v02(build))
        self.images[name] = image
        self.components.append({"name": name, "containerImage": self.reference(name)})
        return digest

    def reference(self, name: str) -> str:
        return f"{self.server.host}/shop/{name}:1.0"

    def rules(self, text: str = RULES, name: str = "rules") -> str:
        place = self.directory / name
        place.mkdir(exist_ok=True)
        (place / "main.rego").write_text(text)
        return str(place)

    def policy(self, *rules: str, **members: Any) -> str:
        sources = [{"policy": [place]} for place in rules or (self.rules(),)]
        return json.dumps({"sources": sources} | members)

    def key_file(self, key: SigningKey | None = None) -> str:
        file = self.directory / ("cosign.pub" if key is None else "other.pub")
        file.write_text((key or self.key).public_pem)
        return str(file)

    def arguments(self, *args: str, policy: str | None = None, **flags: str) -> list[str]:
        """``validate image`` on everything published, with JSON on stdout."""
        defaults = {
            "policy": self.policy() if policy is None else policy,
            "public_key": self.key_file(),
            "images": json.dumps({"components": self.components}),
            "cache_dir": str(self.directory / "cache"),
            "output": "json",
            "ignore_rekor": "true",
            "retry_max_retry": "0",
        }
        values = defaults | flags
        if policy == self.NO_POLICY:
            del values["policy"]
        options = [f"--{k.replace('_', '-')}={v}" for k, v in values.items() if v or k == "policy"]
        return ["validate", "image", *options, *args]

    def validate(self, *args: str, policy: str | None = None, **flags: str) -> Outcome:
        """Run the program inside this process."""
        arguments = self.arguments(*args, policy=policy, **flags)
        self.capture.readouterr()
        status = run(arguments)
        captured = self.capture.readouterr()
        return Outcome(status, captured.out, captured.err)


@contextmanager
def open_shop(directory: Path, capture: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    with RegistryServer() as server:
        yield Shop(server, directory, capture)
