"""Verdicts that are published to a ledger, and found there again."""

from __future__ import annotations

from pytest_bdd import given, parsers, then, when

from acceptance.steps.policy import ALLOW
from acceptance.world import World
from conforma.serve.signing import policy_bundle
from conforma.serve.signing_key import SigningKey


@given("a pinned policy that accepts everything")
def pinned_policy(world: World) -> None:
    push_policy(world, ALLOW)
    world.policy_sources.append(f"oci::{world.registry.host}/policy:latest")


@when("the policy changes and refuses everything")
def refusing_policy(world: World) -> None:
    push_policy(world, ALLOW.replace("\tfalse\n", ""))


def push_policy(world: World, rules: str) -> None:
    policy_bundle({"main.rego": rules.encode()}).put(world.registry.store, "policy", "latest")


@given("a ledger with its keys")
def ledger(world: World) -> None:
    write_keys(world, SigningKey.generate())
    world.environment["CONFORMA_LEDGER_KEY"] = str(world.directory / "keys/online.pem")
    made = world.finish(
        world.start("ledger", "init", "ledger", "--keys=keys", "--bins=4"), world.new_report()
    )
    assert made.status == 0, made.stderr


def write_keys(world: World, key: SigningKey) -> None:
    (world.directory / "vsa.key").write_text(key.private_pem)
    (world.directory / "vsa.pub").write_text(key.public_pem)


@when("the release is validated and its verdicts are published")
def publish_verdicts(world: World) -> None:
    validate_with_ledger(world)


@when(parsers.parse('the release is validated, and verdicts older than "{age}" do not count'))
def believe_young_verdicts(world: World, age: str) -> None:
    validate_with_ledger(world, f"--vsa-expiration={age}")


def validate_with_ledger(world: World, *options: str) -> None:
    world.validate(
        f"--images={world.write_snapshot()}",
        "--vsa",
        "--vsa-signing-key=vsa.key",
        "--vsa-public-key=vsa.pub",
        "--vsa-upload=ledger@ledger",
        "--attestation-output-dir=verdicts",
        *options,
    )


@when("the release is validated with verdicts by another key")
def other_verdicts(world: World) -> None:
    write_keys(world, SigningKey.generate())
    publish_verdicts(world)


@when("the ledger's timestamp is damaged")
def damage_timestamp(world: World) -> None:
    path = world.directory / "ledger/metadata/timestamp.json"
    path.write_bytes(path.read_bytes().replace(b'"version":', b'"version":1'))


@then(parsers.parse('"{name}" was skipped'))
def was_skipped(world: World, name: str) -> None:
    assert world.outcome.component(name)["skipped"].startswith("passed at 20")


@then(parsers.parse('"{name}" was validated'))
def was_validated(world: World, name: str) -> None:
    component = world.outcome.component(name)
    assert "skipped" not in component
    results = [*component.get("successes", []), *component.get("violations", [])]
    assert "main.anything" in [result["metadata"]["code"] for result in results]
