"""A pull-through server, and clients that pull from it as a container runtime does."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from pytest_bdd import given, parsers, then, when

from acceptance.steps.images import layers_of, shared_layers
from acceptance.world import Published, World
from conforma.oci.digest import Digest

Pulled = dict[str, bytes]
"""What one client got, by digest."""


@pytest.fixture
def pulls() -> list[Pulled]:
    """What each client of the scenario has got."""
    return []


@pytest.fixture
def refusals() -> list[int]:
    """The status of each answer that a client could not use."""
    return []


@given("a server that pulls through the cache", target_fixture="server")
def pull_through(world: World) -> str:
    process = world.start("serve", f"--upstream={world.registry.host}", "--listen=127.0.0.1:0")
    assert process.stdout is not None
    line = process.stdout.readline()
    listening = re.search(r" on (127\.0\.0\.1:\d+)", line)
    assert listening is not None, line
    return listening[1]


@when("a client pulls every image from the server")
def pull(world: World, server: str, pulls: list[Pulled]) -> None:
    pull_at_once(world, server, pulls, 1)


@when(parsers.parse("{count:d} clients pull every image from the server at once"))
def pull_at_once(world: World, server: str, pulls: list[Pulled], count: int) -> None:
    with ThreadPoolExecutor(count) as clients:
        pulls += clients.map(lambda _: everything(world, server), range(count))


@when(parsers.parse('the release is validated through the server with "{options}"'))
def validate_through(world: World, server: str, options: str) -> None:
    mirror = f"--registry-mirror={world.registry.host}={server}?final"
    world.validate(f"--images={world.write_snapshot()}", mirror, *shlex.split(options))


@when("a client pushes an image to the server")
def push(world: World, server: str, refusals: list[int]) -> None:
    image = next(iter(world.images.values()))
    status, _ = answer(server, f"/v2/{image.repository}/manifests/new", "PUT", b"{}")
    refusals.append(status)


@when("a client asks the server for an image that does not exist")
def ask_for_nothing(world: World, server: str, refusals: list[int]) -> None:
    image = next(iter(world.images.values()))
    status, _ = answer(server, f"/v2/{image.repository}/manifests/no-such-tag")
    refusals.append(status)


@when("the server is told to stop")
def stop_server(world: World, server: str) -> None:
    assert answer(server, "/healthz")[0] == 200
    (process,) = world.running
    process.send_signal(signal.SIGTERM)
    world.finish(process, world.new_report())


@then(parsers.parse("the client is refused with {status:d}"))
def refused_with(refusals: list[int], status: int) -> None:
    assert refusals == [status]


@then("every client got what the registry has")
def complete(world: World, pulls: list[Pulled]) -> None:
    wanted = {str(image.digest) for image in world.images.values()} | {
        str(layer) for name in world.images for layer in layers_of(world, name)
    }
    assert pulls
    for pulled in pulls:
        assert wanted <= pulled.keys()
        for digest, content in pulled.items():
            assert str(Digest.of(content)) == digest


@then("no client got the damaged layer")
def withheld(world: World, pulls: list[Pulled]) -> None:
    damaged = str(shared_layers(world)[0])
    assert pulls
    for pulled in pulls:
        assert damaged not in pulled
        assert str(shared_layers(world)[1]) in pulled


def everything(world: World, server: str) -> Pulled:
    """Pull every image; what does not arrive whole is left out."""
    pulled: Pulled = {}
    for image in world.images.values():
        manifest = content(server, image, f"manifests/{image.digest}")
        assert manifest is not None
        pulled[str(image.digest)] = manifest
        document = json.loads(manifest)
        for described in (document["config"], *document["layers"]):
            digest = described["digest"]
            if digest not in pulled and (body := content(server, image, f"blobs/{digest}")):
                pulled[digest] = body
    return pulled


def content(server: str, image: Published, what: str) -> bytes | None:
    """The body of an answer; ``None`` if there is none or it broke off."""
    try:
        status, body = answer(server, f"/v2/{image.repository}/{what}")
    except (http.client.HTTPException, OSError):
        return None
    return body if status == 200 else None


def answer(server: str, path: str, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(server, timeout=60)
    try:
        connection.request(method, path, body or None)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
