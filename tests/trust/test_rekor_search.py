"""Signatures that came without a log entry: the log is asked, and not simply believed."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from acceptance.private_sigstore import rekor
from acceptance.private_sigstore.cosign import provenance
from acceptance.private_sigstore.fulcio import public_pem
from acceptance.private_sigstore.rekor_server import RekorServer
from acceptance.private_sigstore.service import Answer
from conforma.cancellation import Cancellation
from conforma.errors import InputError, LogUnavailable, NoMatchingSignature
from conforma.oci.options import RegistryOptions
from conforma.oci.retry import RetryPolicy
from conforma.trust.evidence import REKOR_BUNDLE, Attached
from conforma.trust.keys import PublicKey
from conforma.trust.rekor_client import RekorClient
from conforma.trust.signature import Signature
from conforma.trust.verify import Verifier
from tests.trust.conftest import World
from tests.trust.lab import P256, Lab

QUICK = RegistryOptions(
    retry=RetryPolicy(duration=0.001, max_wait=0.002, max_retry=2), environment={"PATH": ""}
)


@pytest.fixture
def log(world: World) -> Iterator[RekorServer]:
    with RekorServer(world.lab.log) as server:
        yield server


@pytest.fixture
def client() -> Iterator[RekorClient]:
    cancellation = Cancellation()
    with RekorClient(QUICK, cancellation) as client:
        yield client
    cancellation.close()


def bare(layer: Attached) -> Attached:
    """The layer without its log entry."""
    kept = {name: value for name, value in layer.annotations.items() if name != REKOR_BUNDLE}
    return replace(layer, annotations=kept)


def verifier(world: World, client: RekorClient, url: str, **policy: Any) -> Verifier:
    wanted = policy.pop("policy", None) or world.lab.by_key(**policy)
    return Verifier(
        world.registry, replace(wanted, rekor_url=url), world.lab.root(), ask_log=client, environ={}
    )


def refusal(world: World, client: RekorClient, log: RekorServer) -> str:
    with pytest.raises(NoMatchingSignature) as caught:
        verifier(world, client, log.url).image_signatures(world.image)
    return caught.value.message.removeprefix("no matching signatures: ")


def index_of(signature: Signature) -> int | None:
    assert signature.voucher is not None
    return signature.voucher.log_index


@pytest.mark.parametrize("keyless", [False, True])
def test_the_log_is_asked_for_what_is_not_attached(
    world: World, client: RekorClient, log: RekorServer, keyless: bool
) -> None:
    leaf = world.lab.fulcio.issue() if keyless else None
    policy = world.lab.keyless() if keyless else world.lab.by_key()
    world.tag("sig", bare(world.lab.signature(world.digest, leaf)))
    asking = verifier(world, client, log.url, policy=policy)
    (found,) = asking.image_signatures(world.image)
    assert index_of(found) == world.lab.log.entries[0].payload()["logIndex"]
    (query,) = log.queries
    assert [entry["kind"] for entry in query["entries"]] == ["hashedrekord"]


@pytest.mark.parametrize("kind", ["dsse", "intoto"])
def test_attestations_are_found_as_either_kind(
    world: World, client: RekorClient, log: RekorServer, kind: str
) -> None:
    made = world.lab.attestation(provenance(str(world.digest)), kind="dsse")
    if kind == "intoto":
        payload = b64decode(json.loads(made.content)["payload"])
        world.lab.log.entries.clear()
        world.lab.log.add(rekor.intoto_1(made.content, payload, world.lab.pem))
    world.tag("att", bare(made))
    (found,) = verifier(world, client, log.url).attestations(world.image)
    assert index_of(found.signatures[0]) == world.lab.log.entries[0].payload()["logIndex"]
    (query,) = log.queries
    assert [entry["kind"] for entry in query["entries"]] == ["dsse", "intoto"]


def test_no_question_for_what_is_attached_or_not_wanted(
    world: World, client: RekorClient, log: RekorServer
) -> None:
    attached = world.lab.signature(world.digest)
    world.tag("sig", attached)
    verifier(world, client, log.url).image_signatures(world.image)
    world.tag("sig", bare(attached))
    verifier(world, client, log.url, ignore_rekor=True).image_signatures(world.image)
    assert log.queries == []


def test_without_a_url_there_is_nobody_to_ask(
    world: World, client: RekorClient, log: RekorServer
) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    with pytest.raises(
        NoMatchingSignature, match="rekor client not provided for online verification"
    ):
        verifier(world, client, "").image_signatures(world.image)
    assert log.queries == []


def test_one_question_a_run_however_often_it_is_wondered(
    world: World, client: RekorClient, log: RekorServer
) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    asking = verifier(world, client, log.url)
    assert asking.image_signatures(world.image) == asking.image_signatures(world.image)
    assert len(log.queries) == 1


def test_the_earliest_entry_wins(world: World, client: RekorClient, log: RekorServer) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    first = world.lab.log.entries[0]
    earlier = world.lab.log.add(json.loads(first.body), at=first.time - 60)
    (found,) = verifier(world, client, log.url).image_signatures(world.image)
    assert index_of(found) == earlier.payload()["logIndex"]


def test_any_of_several_keys(world: World, client: RekorClient, log: RekorServer) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    other = public_pem(ec.generate_private_key(ec.SECP256R1()))
    both = PublicKey(other + public_pem(P256))
    assert verifier(world, client, log.url, public_key=both).image_signatures(world.image)
    assert len(log.queries) == 2


# What the log says is not enough


def change(**members: Any) -> Any:
    return lambda uuid, document: (uuid, {**document, **members})


def change_proof(**members: Any) -> Any:
    def alter(uuid: str, document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        evidence = document["verification"]
        proof = {**evidence["inclusionProof"], **members}
        return uuid, {**document, "verification": {**evidence, "inclusionProof": proof}}

    return alter


def elsewhere(uuid: str, document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "0" * 80, document


def later(uuid: str, document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return uuid, {**document, "integratedTime": document["integratedTime"] + 1}


FOREIGN = Lab()
CASES = {
    "another time": (later, "unable to verify SET"),
    "another index": (change(logIndex=1), "unable to verify SET"),
    "another log": (change(logID="00" * 32), "rekor log public key not found for payload"),
    "another root": (change_proof(rootHash="00" * 32), "calculated another root hash"),
    "another size": (change_proof(treeSize=4000), "inclusion proof: too few hashes"),
    "no path": (change_proof(hashes=[]), "inclusion proof: too few hashes"),
    "a long path": (change_proof(hashes=["00" * 32] * 65), "at most 64 hashes"),
    "an unsigned tree": (
        change_proof(checkpoint="log\n1\nAAAA\n"),
        "checkpoint: not a signed note",
    ),
    "a stranger's tree": (
        change_proof(checkpoint=FOREIGN.log.checkpoint(FOREIGN.log.leaves)),
        "checkpoint: is about a tree",
    ),
    "no number": (change(logIndex="one"), "'one' is not an index, a size or a time"),
    "no evidence": (change(verification=None), "malformed log entry: an object is missing"),
    "no hexadecimal": (
        change(logID="xy"),
        "malformed log entry: 'xy' is not lower-case hexadecimal",
    ),
    "another name": (elsewhere, "no valid tlog entries found with proposed entry"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_altered_answer_is_refused(
    world: World, client: RekorClient, log: RekorServer, case: str
) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    log.alter, reason = CASES[case]
    told = refusal(world, client, log)
    assert told.startswith("no valid tlog entries found")
    assert reason in told


def test_a_good_entry_about_another_signature_is_refused(
    world: World, client: RekorClient, log: RekorServer
) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    other = world.lab.log.add(rekor.hashedrekord(b"another", b"signature", world.lab.pem))
    log.alter = lambda *_: (other.uuid, other.retrieved())
    assert refusal(world, client, log) == (
        "no valid tlog entries found signature in bundle does not match signature being verified"
    )


def test_what_was_never_logged_is_not_found(
    world: World, client: RekorClient, log: RekorServer
) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    world.lab.log.entries.clear()
    assert refusal(world, client, log) == "signature not found in transparency log"
    log.faults.append(Answer(404, b'{"message": "no entries found"}'))
    assert refusal(world, client, log) == "signature not found in transparency log"


def test_a_log_that_refuses_the_proposal_is_told(
    world: World, client: RekorClient, log: RekorServer
) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    log.faults.append(Answer(400, b'{"code":400,"message":"error canonicalizing entry"}'))
    told = refusal(world, client, log)
    assert told.startswith(f"searching log query: POST {log.url}/api/v1/log/entries/retrieve: ")
    assert "error canonicalizing entry" in told


# Manners, and outages


def test_an_outage_is_no_missing_signature(
    world: World, client: RekorClient, log: RekorServer
) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    log.faults += [Answer(503)] * 3
    asking = verifier(world, client, log.url)
    with pytest.raises(LogUnavailable) as caught:
        asking.image_signatures(world.image)
    assert caught.value.exit_status == 3
    assert str(world.image) in caught.value.message
    assert "503" in caught.value.message
    assert len(log.queries) == 3
    # An outage is not remembered: the log is back, and so is the answer.
    assert asking.image_signatures(world.image)


def test_too_many_requests_are_waited_out(
    world: World, client: RekorClient, log: RekorServer
) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    log.faults += [Answer(429, headers={"Retry-After": "0"}), Answer(502)]
    assert verifier(world, client, log.url).image_signatures(world.image)
    assert len(log.queries) == 3


def test_a_log_that_asks_for_a_long_pause_has_closed(
    world: World, client: RekorClient, log: RekorServer
) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    log.faults.append(Answer(429, headers={"Retry-After": "3600"}))
    with pytest.raises(LogUnavailable, match="it asks for a pause of 3600 s"):
        verifier(world, client, log.url).image_signatures(world.image)
    assert len(log.queries) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[1]", b"[[]]"])
def test_an_answer_that_is_none_is_an_outage(
    world: World, client: RekorClient, log: RekorServer, body: bytes
) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    log.faults.append(Answer(200, body))
    with pytest.raises(LogUnavailable, match="searching log query: "):
        verifier(world, client, log.url).image_signatures(world.image)


def test_nobody_listens(world: World, client: RekorClient) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    with RekorServer(world.lab.log) as gone:
        url = gone.url
    with pytest.raises(LogUnavailable, match="cannot connect"):
        verifier(world, client, url).image_signatures(world.image)


@pytest.mark.parametrize("url", ["rekor.example", "ftp://rekor.example", "https://"])
def test_a_url_that_is_none(world: World, client: RekorClient, url: str) -> None:
    world.tag("sig", bare(world.lab.signature(world.digest)))
    with pytest.raises(InputError, match="not an http or https URL"):
        verifier(world, client, url).image_signatures(world.image)
