"""Images that share layers in one registry, and the mirror command run on them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from conforma.cli.root import run
from conforma.serve.images import Image, image_of, layer_of, random_member
from conforma.serve.log import RequestLog
from conforma.serve.registry import RegistryServer


@dataclass
class Outcome:
    """How a run of the program ended."""

    status: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The summary of ``--output=json``."""
        document: dict[str, Any] = json.loads(self.out)
        return document

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of ``--progress=json``."""
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]


@dataclass
class Scene:
    """A source registry and what was put there."""

    source: RegistryServer
    capture: pytest.CaptureFixture[str]
    images: dict[str, Image] = field(default_factory=dict)

    def publish(self, count: int, *, size: int = 100_000, repository: str = "shop/app{}") -> None:
        """Images of a layer of their own on two that they share."""
        shared = [layer_of([random_member(f"base{n}", 3 * size, n)]) for n in range(2)]
        for number in range(count):
            own = layer_of([random_member("own", size, f"own{number}")])
            image = image_of([*shared, own], labels={"n": str(number)})
            name = repository.format(number)
            image.put(self.source.store, name, f"v{number}")
            self.images[f"{self.source.host}/{name}:v{number}"] = image

    @property
    def blobs(self) -> dict[str, int]:
        """Digest and size of every distinct blob."""
        return {
            entry["digest"]: entry["size"]
            for image in self.images.values()
            for document in [json.loads(image.manifest)]
            for entry in (document["config"], *document["layers"])
        }

    def mirror(self, to: str, *args: str, images: list[str] | None = None) -> Outcome:
        """Run ``conforma mirror`` on everything published, with JSON on stdout."""
        names = list(self.images) if images is None else images
        components = [{"name": name.rpartition("/")[2], "containerImage": name} for name in names]
        what = [f"--images={json.dumps({'components': components})}"] if names else []
        flags = ["--output=json", "--progress=none", "--retry-max-retry=0", *args]
        self.capture.readouterr()
        status = run(["mirror", *what, f"--to={to}", *flags])
        captured = self.capture.readouterr()
        return Outcome(status, captured.out, captured.err)


def uploads(log: RequestLog) -> Counter[str]:
    """How often each digest was uploaded, that is, completed with a PUT."""
    found: Counter[str] = Counter()
    for request in log.matching("PUT", "/blobs/uploads/"):
        if request.status == 201:
            found[request.query.partition("digest=")[2].replace("%3A", ":")] += 1
    return found


def stored(server: RegistryServer, repository: str, tag: str) -> bytes:
    """The manifest that a server has under a tag."""
    found = server.store.repository(repository).find(tag)
    assert found is not None, f"{repository}:{tag}"
    return found[1].raw


def exact(summary: dict[str, Any]) -> bool:
    """Whether the account closes."""
    states = ("copied", "present", "skipped", "failed", "cancelled")
    return bool(summary["planned"] == sum(summary[state] for state in states))
