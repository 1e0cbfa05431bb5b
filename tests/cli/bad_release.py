"""A release of a good component and a bad one, judged by rules that read every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conforma.oci.digest import Digest
from conforma.serve.images import Image, ImageIndex
from conforma.serve.signing import Signer
from conforma.serve.statements import Build, provenance_v02
from tests.cli.program import run_program
from tests.cli.shop import Outcome, Shop

GOOD, BAD = "web", "bad"

FORBIDDEN = """
package main

import rego.v1

# METADATA
# title: No forbidden file
# custom:
#   short_name: forbidden
deny contains result if {
    some entry in conforma.oci.image_tree(input.image.ref, {})
    entry.path == "etc/forbidden"
    result := {"code": "main.forbidden", "msg": "Contains what it must not"}
}

# METADATA
# title: No debug labels
# custom:
#   short_name: debug
deny contains result if {
    input.image.config.Labels.debug == "true"
    result := {"code": "main.debug", "msg": "Built for debugging"}
}
"""
"""Rules that find nothing to complain about where there is nothing to see."""


@dataclass
class BadRelease:
    """Adds one component to a release with a good one, and runs the command on both."""

    shop: Shop

    @property
    def policy(self) -> str:
        """The configuration with the rules above."""
        return self.shop.policy(self.shop.rules(FORBIDDEN, "forbidden"))

    @property
    def repository(self) -> str:
        """Where the bad component lives."""
        return f"shop/{BAD}"

    def add(self, content: Image | ImageIndex) -> Digest:
        """Publish the bad component, signed and attested."""
        return self._evidence(content.put(self.shop.server.store, self.repository, "1.0"))

    def add_raw(self, manifest: bytes, media_type: str, digest: Digest | None = None) -> Digest:
        """Publish bytes in place of its manifest; ``digest`` may be a lie."""
        repository = self.shop.server.store.repository(self.repository)
        return self._evidence(
            repository.put_manifest(manifest, media_type, tag="1.0", digest=digest)
        )

    def name(self, reference: str) -> None:
        """List an image in the release, whatever it is called."""
        self.shop.components.append({"name": BAD, "containerImage": reference})

    def run(
        self, *args: str, changes: Mapping[str, str | None] | None = None, **flags: Any
    ) -> Outcome:
        """Run the command as a process."""
        values = {"policy": self.policy} | flags
        return run_program(self.shop.arguments(*args, **values), changes=changes)

    def _evidence(self, digest: Digest) -> Digest:
        signer = Signer(self.shop.server.store, self.repository, self.shop.key)
        signer.sign(digest)
        signer.attest(digest, provenance_v02(Build(self.repository, digest)))
        self.name(self.shop.reference(BAD))
        return digest


def assert_undecided(done: Outcome, *words: str) -> None:
    """The bad component could not be decided, for these reasons; the good one passed."""
    assert done.status == 3, done.err
    bad = done.component(BAD)
    assert bad["success"] is False
    assert "violations" not in bad
    for word in words:
        assert word in bad["error"], bad["error"]
    assert done.report["undecided"] == 1
    assert done.component(GOOD)["success"] is True
    told = f"Error: error validating image {bad['containerImage']} of component {BAD}: "
    assert told + bad["error"] + "\n" in done.err
    assert_clean(done)


def assert_violated(done: Outcome, code: str, *words: str) -> None:
    """The bad component did not pass because of ``code``; the good one passed."""
    assert done.status == 1, done.err
    (violation,) = done.component(BAD)["violations"]
    assert violation["metadata"]["code"] == code
    for word in words:
        assert word in violation["msg"]
    assert done.component(GOOD)["success"] is True
    assert "undecided" not in done.report
    assert done.err.endswith("Error: success criteria not met\n")
    assert_clean(done)


def assert_refused(done: Outcome, *words: str) -> None:
    """The input cannot be used: exit status 1, no report, and these reasons."""
    assert (done.status, done.out) == (1, ""), done.err
    for word in words:
        assert word in done.err
    assert done.err.count("Error: ") == 1
    assert_clean(done)


def assert_clean(done: Outcome) -> None:
    """Nothing looks like a bug, and no secret is shown."""
    for text in (done.out, done.err):
        assert "Traceback" not in text, text
        assert "internal error" not in text, text
        assert "s3cret" not in text
