"""Images, their signatures and attestations, and what their registry does."""

from __future__ import annotations

import base64
import json

from pytest_bdd import given, parsers, when

from acceptance.world import World, own_layer
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Platform
from conforma.serve.auth import BasicAuth, BearerAuth
from conforma.serve.faults import Fault, Gate
from conforma.serve.images import Member, image_of, index_of, layer_of, random_member
from conforma.serve.signing import Signer, copy_evidence
from conforma.serve.statements import Build, provenance_v02, provenance_v1
from conforma.serve.transparency import TransparencyLog

SHARED_SIZE = 400_000
USER, PASSWORD, WRONG = "robot", "c4nary-horse", "c4nary-pony"


@given(parsers.re(r'a signed and attested image "(?P<name>[^"]+)"$'))
@when(parsers.re(r'another signed and attested image "(?P<name>[^"]+)" joins the release$'))
def good_image(world: World, name: str) -> None:
    world.publish(name, signed=world.key, attested=world.key)


@given(
    parsers.parse('a signed and attested image "{name}" with the label "{label}" set to "{value}"')
)
def labelled_image(world: World, name: str, label: str, value: str) -> None:
    image = image_of([own_layer(name)], labels={label: value})
    world.publish(name, image, signed=world.key, attested=world.key)


@given(parsers.parse('a signed and attested image "{name}" that holds the file "{path}"'))
def image_with_file(world: World, name: str, path: str) -> None:
    image = image_of([own_layer(name, Member(path, b"content"))])
    world.publish(name, image, signed=world.key, attested=world.key)


@given(parsers.parse('an image "{name}" without a signature'))
def unsigned_image(world: World, name: str) -> None:
    world.publish(name, attested=world.key)


@given(parsers.parse('an image "{name}" without attestations'))
def unattested_image(world: World, name: str) -> None:
    world.publish(name, signed=world.key)


@given(parsers.parse('an image "{name}" signed and attested by somebody else'))
def foreign_image(world: World, name: str) -> None:
    world.publish(name, signed=world.other_key, attested=world.other_key)


@given(parsers.parse('an image "{name}" that was never pushed'))
def absent_image(world: World, name: str) -> None:
    published = world.publish(name)
    world.registry.store.repository(published.repository).delete_manifest(str(published.digest))


@given(parsers.parse('a signed and attested image "{name}" with provenance in SLSA {version}'))
def image_with_provenance(world: World, name: str, version: str) -> None:
    image = world.publish(name, signed=world.key)
    build = Build(f"{world.registry.host}/{image.repository}", image.digest)
    make = {"v0.2": provenance_v02, "v1": provenance_v1}[version]
    Signer(world.registry.store, image.repository, world.key).attest(image.digest, make(build))


@given(parsers.parse('a signed and attested image "{name}" for the platforms {platforms}'))
def multi_platform_image(world: World, name: str, platforms: str) -> None:
    children = []
    for text in platforms.split(" and "):
        platform = Platform(*text.split("/"))
        children.append(image_of([own_layer(f"{name}-{platform.architecture}")], platform=platform))
    world.publish(
        name,
        index_of(children),
        signed=world.key,
        attested=world.key,
        digests=tuple(child.digest for child in children),
    )


@given(parsers.parse('the signature of "{target}" was copied from "{source}"'))
def stolen_signature(world: World, target: str, source: str) -> None:
    copy_from(world, target, source, "sig")


@given(parsers.parse('the attestations of "{target}" were copied from "{source}"'))
def stolen_attestations(world: World, target: str, source: str) -> None:
    copy_from(world, target, source, "att")


def copy_from(world: World, target: str, source: str, suffix: str) -> None:
    """Put the evidence of one image under the tag of another."""
    one, other = world.images[source], world.images[target]
    places = (one.repository, one.digest), (other.repository, other.digest)
    copy_evidence(world.registry.store, *places, suffix)


@given("signatures are recorded in a transparency log")
def transparency_log(world: World) -> None:
    world.log = TransparencyLog()


@given(parsers.parse("{count:d} signed and attested images that share {layers:d} layers"))
def sharing_images(world: World, count: int, layers: int) -> None:
    shared = [
        layer_of(
            [
                Member("etc/app/config.yaml", json.dumps({"layer": number}).encode()),
                random_member(f"opt/shared-{number}", SHARED_SIZE, number),
            ]
        )
        for number in range(layers)
    ]
    for number in range(count):
        name = f"component-{number:02}"
        image = image_of([*shared, own_layer(name)], labels={"name": name})
        world.publish(name, image, signed=world.key, attested=world.key)


@given(parsers.parse("the first shared layer is damaged in the registry"))
def damaged_layer(world: World) -> None:
    digest = shared_layers(world)[0]
    body = world.registry.store.blob(digest)
    assert body is not None
    data = bytearray(body.read(0, body.size))
    data[len(data) // 2] ^= 1
    world.registry.store.put_blob("release/component-00", bytes(data), digest=digest)


@given(parsers.parse('the registry answers {status:d} to everything about "{name}"'))
def broken_repository(world: World, status: int, name: str) -> None:
    repository = world.images[name].repository
    world.registry.faults.add(Fault(status=status), path=f"/v2/{repository}/", times=None)


@given(parsers.parse('the registry answers {status:d} to the layers of "{name}"'))
def broken_layers(world: World, status: int, name: str) -> None:
    repository = world.images[name].repository
    for digest in layers_of(world, name):
        path = f"/v2/{repository}/blobs/{digest}"
        world.registry.faults.add(Fault(status=status), path=path, times=None)


@given(parsers.parse("the registry answers {status:d} to the first {count:d} requests"))
def flaky_registry(world: World, status: int, count: int) -> None:
    world.registry.faults.add(Fault(status=status), times=count)


@given(parsers.parse('the registry hangs at a layer of "{name}"'), target_fixture="gate")
def hanging_registry(world: World, name: str) -> Gate:
    gate = Gate()
    fault = Fault(hold_at=10, gate=gate)
    world.registry.faults.add(fault, path=str(layers_of(world, name)[0]), times=None)
    return gate


@given("the registry stops in the middle of the first shared layer", target_fixture="gate")
def stopping_registry(world: World) -> Gate:
    """Once: whoever asks again gets an answer."""
    gate = Gate()
    fault = Fault(hold_at=SHARED_SIZE // 2, gate=gate)
    world.registry.faults.add(fault, path=str(shared_layers(world)[0]))
    return gate


@given("the registry is down")
@when("the registry is shut down")
def registry_down(world: World) -> None:
    world.registry.close()


@given("the registry wants basic credentials")
def basic_registry(world: World) -> None:
    world.registry.auth = BasicAuth(USER, PASSWORD)


@given("the registry wants bearer tokens")
def token_registry(world: World) -> None:
    world.registry.auth = BearerAuth(USER, PASSWORD)


@given("nobody has logged in")
def not_logged_in(world: World) -> None:
    assert not (world.directory / ".docker").exists()


@given("the user has logged in to the registry")
def logged_in(world: World) -> None:
    log_in(world, PASSWORD)


@given("the user has logged in with a wrong password")
def wrongly_logged_in(world: World) -> None:
    log_in(world, WRONG)


def log_in(world: World, password: str) -> None:
    """Leave what ``docker login`` leaves."""
    pair = base64.b64encode(f"{USER}:{password}".encode()).decode()
    file = world.directory / ".docker" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"auths": {world.registry.host: {"auth": pair}}}))


def layers_of(world: World, name: str) -> tuple[Digest, ...]:
    """The layers of one image, lowest first."""
    image = world.images[name]
    found = world.registry.store.repository(image.repository).find(image.digest)
    assert found is not None and found[1].media_type == media_types.OCI_MANIFEST
    return tuple(Digest.parse(layer["digest"]) for layer in found[1].document["layers"])


def shared_layers(world: World) -> tuple[Digest, ...]:
    """The layers that all images have."""
    every = [set(layers_of(world, name)) for name in world.images]
    return tuple(
        d for d in layers_of(world, next(iter(world.images))) if all(d in s for s in every)
    )
