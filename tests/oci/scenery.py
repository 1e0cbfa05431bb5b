"""What the registry client's tests put on a server, and how they wait and log in."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor
from conforma.oci.pool import Origin
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry, RequestSeen
from conforma.serve.registry import RegistryServer

SECRET = "c4nary-s3cret"


@dataclass
class Client:
    """A registry client and everything it told its observer."""

    registry: Registry
    seen: list[RequestSeen] = field(default_factory=list)


ClientFactory = Callable[..., Client]
Serving = Callable[..., RegistryServer]
"""Starts a registry with the options of :class:`RegistryServer`: our own, or Debian's behind it."""


def only_ours(reason: str) -> pytest.MarkDecorator:
    """For a test that docker-registry gives no occasion for, and why."""
    assert reason
    return pytest.mark.parametrize("serving", ["ours"], indirect=True)


def put_image(
    server: RegistryServer, name: str = "app", tag: str = "v1", *, content: bytes = b"layer"
) -> Reference:
    """Store an image of one layer; the reference is by tag."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"User": "1"}}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": stored(server, name, config, media_types.OCI_CONFIG).as_dict(),
        "layers": [stored(server, name, content, media_types.OCI_LAYER).as_dict()],
    }
    raw = json.dumps(document).encode()
    server.store.repository(name).put_manifest(raw, media_types.OCI_MANIFEST, tag=tag)
    return Reference.parse(f"{server.host}/{name}:{tag}")


def stored(
    server: RegistryServer, name: str, data: bytes, media_type: str = media_types.OCTETS
) -> Descriptor:
    """Store a blob."""
    return Descriptor(media_type, server.store.put_blob(name, data), len(data))


def digest_of(server: RegistryServer, name: str, tag: str) -> Digest:
    found = server.store.repository(name).find(tag)
    assert found is not None
    return found[0]


def until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    """Return once another thread has made ``condition`` true."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        pause.wait(0.001)


def is_closed(registry: Registry, server: RegistryServer) -> bool:
    """Whether the client leaves the server alone after a 429."""
    return registry._exchange.throttle.is_closed(Origin("http", "127.0.0.1", server.port))


def login(home: Path, registry: str, user: str = "me", password: str = SECRET) -> dict[str, str]:
    """An environment whose docker configuration knows one registry."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    return configured(home, {"auths": {registry: {"auth": auth}}})


def configured(home: Path, document: dict[str, Any]) -> dict[str, str]:
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker/config.json").write_text(json.dumps(document))
    return {"HOME": str(home), "PATH": ""}
