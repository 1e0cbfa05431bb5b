"""The functions of rules, against a real registry, and from real rules in the real engine."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from conforma.cache.images import ImageReader
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.errors import (
    AccessDenied,
    BadArchive,
    BadManifest,
    BadResponse,
    ConformaError,
    DigestMismatch,
    EvaluationFailed,
    RegistryUnreachable,
    UnsafeArchive,
)
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Platform
from conforma.oci.options import RegistryOptions
from conforma.oci.registry import Registry
from conforma.oci.retry import RetryPolicy
from conforma.policy.rego.builtins import builtins_for
from conforma.policy.rego.engine import Ruleset
from conforma.policy.rego.frames import Undefined
from conforma.serve.faults import Fault, Gate
from conforma.serve.images import (
    Layer,
    Member,
    artifact_of,
    image_of,
    index_of,
    layer_of,
    symlink,
    whiteout,
)
from conforma.serve.registry import RegistryServer
from conforma.serve.signing import Signer
from conforma.serve.signing_key import SigningKey
from conforma.serve.statements import statement
from conforma.trust.keys import PublicKey
from conforma.trust.trust_policy import TrustPolicy
from conforma.trust.verify import Verifier

Table = Mapping[str, Callable[..., Any]]
ABSENT = "sha256:" + "0" * 64
KEY = SigningKey.generate()
OTHER_KEY = SigningKey.generate()


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    cancellation = Cancellation()
    options = RegistryOptions(retry=RetryPolicy(duration=0.0, max_wait=0.0))
    policy = TrustPolicy(PublicKey(KEY.public_pem), ignore_rekor=True)
    with (
        Registry(options, cancellation) as registry,
        SafeCache.open(CacheOptions(directory=tmp_path / "cache"), cancellation) as cache,
    ):
        yield builtins_for(
            registry,
            ImageReader(registry, cache),
            Verifier(registry, policy),
            PublicKey.load,
            cancellation,
        )


def put_blob(server: RegistryServer, content: bytes) -> str:
    server.store.put_blob("r", content)
    return f"{server.host}/r@{Digest.of(content)}"


def requests(server: RegistryServer, method: str, part: str) -> int:
    return sum(1 for seen in server.log if seen.method == method and part in seen.path)


# Blobs


def test_a_blob_is_text(table: Table, server: RegistryServer) -> None:
    ref = put_blob(server, b'{"a": 12345678901234567890}')
    assert table["ec.oci.blob"](ref) == b'{"a": 12345678901234567890}'
    assert table["ec.oci.parsed_blob"](ref) == {"a": 12345678901234567890}


@pytest.mark.parametrize("content", [b"{", b"{} {}", b"NaN", b"", b"\xff", b"[" * 100_000])
def test_a_blob_that_is_no_json_is_undefined_when_parsed(
    table: Table, server: RegistryServer, content: bytes
) -> None:
    ref = put_blob(server, content)
    assert table["ec.oci.parsed_blob"](ref) is Undefined
    assert table["ec.oci.blob"](ref) == content


def test_a_compressed_blob_is_undefined_also_after_its_files_were_read(
    table: Table, server: RegistryServer
) -> None:
    layer = layer_of([Member("x", b"a: 1")])
    ref = put_blob(server, layer.blob)
    assert table["ec.oci.blob"](ref) is Undefined
    assert table["ec.oci.blob_files"](ref, ["x"]) == {"x": {"a": 1}}
    assert table["ec.oci.blob"](ref) is Undefined
    assert table["ec.oci.blob"](put_blob(server, b"\x28\xb5\x2f\xfd rest")) is Undefined


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_members_of_a_blob_are_read_by_their_exact_names(
    table: Table, server: RegistryServer, compression: Any
) -> None:
    members = [
        Member("task", b"kind: Task\non: yes"),
        Member("x.json", b'{"a": 1, "a": 2}'),
        Member("x.json", b'{"a": 3}'),
        Member("empty"),
        Member("text", b"just text"),
        Member("binary", b"\x00\xff"),
        Member("./dot", b"1"),
    ]
    ref = put_blob(server, layer_of(members, compression=compression).blob)
    names = ["task", "x.json", "empty", "text", "binary", "dot", "nope", "TASK"]
    assert table["ec.oci.blob_files"](ref, names) == {
        "task": {"kind": "Task", "true": True},
        "x.json": {"a": 3},
        "empty": None,
        "text": "just text",
    }
    assert table["ec.oci.blob_files"](ref, ["./dot"]) == {"./dot": 1}
    assert table["ec.oci.blob_files"](ref, []) == {}


def test_a_blob_that_is_no_archive_has_no_files(table: Table, server: RegistryServer) -> None:
    assert (
        table["ec.oci.blob_files"](put_blob(server, gzip.compress(b"x" * 5000)), ["x"]) is Undefined
    )


DIGEST_ONLY: dict[str, tuple[Any, ...]] = {
    "ec.oci.blob": (),
    "ec.oci.parsed_blob": (),
    "ec.oci.blob_files": (["x"],),
    "ec.oci.image_files": (["x"],),
    "conforma.oci.image_tree": ({},),
}
DIGEST_OR_TAG: dict[str, tuple[Any, ...]] = dict.fromkeys(
    (
        "ec.oci.descriptor",
        "ec.oci.image_manifest",
        "ec.oci.image_index",
        "ec.oci.image_tag_refs",
        "ec.oci.image_referrers",
    ),
    (),
)


@pytest.mark.parametrize("name", [*DIGEST_ONLY, *DIGEST_OR_TAG])
@pytest.mark.parametrize(
    "ref",
    [
        "",
        "HOST/r@",
        f"HOST/r@{ABSENT}@{ABSENT}",
        "HOST/r@sha512:" + "0" * 128,
        "HOST/r@sha256:12",
        "HOST/r:b ad",
        3,
    ],
)
def test_what_names_nothing_is_undefined_without_a_request(
    table: Table, server: RegistryServer, name: str, ref: Any
) -> None:
    if isinstance(ref, str):
        ref = ref.replace("HOST", server.host)
    assert table[name](ref, *(DIGEST_ONLY | DIGEST_OR_TAG)[name]) is Undefined
    assert list(server.log) == []


@pytest.mark.parametrize("name", DIGEST_ONLY)
def test_a_tag_does_not_name_content(table: Table, server: RegistryServer, name: str) -> None:
    assert table[name](f"{server.host}/r:tag", *DIGEST_ONLY[name]) is Undefined
    assert list(server.log) == []


@pytest.mark.parametrize(
    "name", [*DIGEST_ONLY, "ec.oci.descriptor", "ec.oci.image_manifest", "ec.oci.image_index"]
)
def test_what_is_not_there_is_undefined_and_logged(
    table: Table, server: RegistryServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.store.put_blob("r", b"x")
    ref = f"{server.host}/r@{ABSENT}"
    with caplog.at_level(logging.ERROR, "conforma.rego"):
        assert table[name](ref, *(DIGEST_ONLY | DIGEST_OR_TAG)[name]) is Undefined
    (record,) = [r for r in caplog.records if r.name == "conforma.rego"]
    assert record.fields["function"] in (name, "ec.oci.blob")  # type: ignore[attr-defined]
    assert record.fields["ref"] == ref  # type: ignore[attr-defined]


EVERY = {**DIGEST_ONLY, **DIGEST_OR_TAG}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("status", "error"), [(500, RegistryUnreachable), (403, AccessDenied)])
def test_what_could_not_be_learnt_is_raised(
    table: Table, server: RegistryServer, name: str, status: int, error: type[ConformaError]
) -> None:
    server.faults.add(Fault(status=status), times=None)
    with pytest.raises(error) as caught:
        table[name](f"{server.host}/r@{ABSENT}", *EVERY[name])
    assert caught.value.exit_status == 3


def test_other_bytes_than_promised_are_raised(table: Table, server: RegistryServer) -> None:
    ref = put_blob(server, b"content")
    server.faults.add(Fault(flip_at=2), path="/blobs/", times=None)
    with pytest.raises(DigestMismatch):
        table["ec.oci.blob"](ref)


# Manifests


def test_a_manifest_has_every_key(table: Table, server: RegistryServer) -> None:
    layer = layer_of([Member("x", b"1")])
    image = image_of([layer], labels={"l": "v"}, annotations={"a": "b"})
    digest = image.put(server.store, "r", "tag")
    config = json.loads(image.manifest)["config"]
    empty = {"data": "", "urls": [], "annotations": {}, "artifactType": ""}
    expected = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "annotations": {"a": "b"},
        "config": {**config, **empty},
        "layers": [
            {
                "mediaType": layer.media_type,
                "size": len(layer.blob),
                "digest": str(layer.digest),
                **empty,
            }
        ],
    }
    assert table["ec.oci.image_manifest"](f"{server.host}/r:tag") == expected
    assert table["ec.oci.image_manifest"](f"{server.host}/r:other@{digest}") == expected
    assert table["ec.oci.image_index"](f"{server.host}/r:tag") is Undefined


def test_descriptors_inside_documents_keep_what_they_say(
    table: Table, server: RegistryServer
) -> None:
    subject = {
        "mediaType": "m",
        "size": 3,
        "digest": ABSENT,
        "data": base64.b64encode(b"hi!").decode(),
    }
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8", "os.features": ["f"]}
    child = {"mediaType": media_types.OCI_MANIFEST, "size": 1, "digest": ABSENT, "platform": platform,
             "urls": ["u"], "artifactType": "t", "annotations": {"k": "v"}}  # fmt: skip
    raw = json.dumps({"schemaVersion": 2, "manifests": [child], "subject": subject}).encode()
    server.store.repository("r").put_manifest(raw, media_types.OCI_INDEX, tag="tag")
    found = table["ec.oci.image_index"](f"{server.host}/r:tag")
    assert found["mediaType"] == ""
    assert found["subject"] == {
        "mediaType": "m", "size": 3, "digest": ABSENT, "data": "hi!", "urls": [],
        "annotations": {}, "artifactType": "",
    }  # fmt: skip
    assert found["manifests"] == [
        {
            **child,
            "data": "",
            "platform": {
                "architecture": "arm64", "os": "linux", "os.version": "", "os.features": ["f"],
                "variant": "v8", "features": [],
            },
        }
    ]  # fmt: skip


def test_an_index_stands_for_its_linux_amd64_image(table: Table, server: RegistryServer) -> None:
    arm = image_of([layer_of([Member("a")])], platform=Platform("linux", "arm64"))
    amd = image_of([layer_of([Member("b")])])
    index_of([arm, amd]).put(server.store, "r", "both")
    index_of([arm]).put(server.store, "r", "arm")
    found = table["ec.oci.image_manifest"](f"{server.host}/r:both")
    assert found["config"]["digest"] == json.loads(amd.manifest)["config"]["digest"]
    assert table["ec.oci.image_manifest"](f"{server.host}/r:arm") is Undefined


def test_a_descriptor_names_the_index_itself(table: Table, server: RegistryServer) -> None:
    index = index_of([image_of([layer_of([Member("b")])])])
    digest = index.put(server.store, "r", "tag")
    assert table["ec.oci.descriptor"](f"{server.host}/r:tag") == {
        "mediaType": media_types.OCI_INDEX,
        "size": len(index.raw),
        "digest": str(digest),
        "data": "",
        "urls": [],
        "annotations": {},
        "artifactType": "",
    }
    assert requests(server, "GET", "/manifests/") == 0


@pytest.mark.parametrize(
    "name", ["ec.oci.image_manifest", "ec.oci.image_files", "conforma.oci.image_tree"]
)
def test_a_manifest_that_is_none_is_no_absence(
    table: Table, server: RegistryServer, name: str
) -> None:
    digest = server.store.repository("r").put_manifest(b"{no json", media_types.OCI_MANIFEST)
    with pytest.raises(BadManifest, match=r"not JSON \(starts with '{no json'\)"):
        table[name](f"{server.host}/r@{digest}", *(DIGEST_ONLY | DIGEST_OR_TAG)[name])


@pytest.mark.parametrize("name", ["ec.oci.image_files", "conforma.oci.image_tree"])
@pytest.mark.parametrize("number", [0, 1], ids=["configuration", "layer"])
def test_a_blob_that_an_image_lists_is_there_or_the_registry_is_broken(
    table: Table, server: RegistryServer, name: str, number: int
) -> None:
    image = image_of([layer_of([Member("a")])])
    digest = image.put(server.store, "r")
    server.store.repository("r").unlink_blob(Digest.of(image.blobs[number]))
    with pytest.raises(BadResponse, match="has the manifest but not all that it lists"):
        table[name](f"{server.host}/r@{digest}", *DIGEST_ONLY[name])


def test_many_manifests_leave_out_what_is_not_there(
    table: Table, server: RegistryServer, caplog: pytest.LogCaptureFixture
) -> None:
    one = f"{server.host}/r@{image_of([layer_of([Member('a')])]).put(server.store, 'r')}"
    two = f"{server.host}/r@{image_of([layer_of([Member('b')])]).put(server.store, 'r')}"
    with caplog.at_level(logging.WARNING, "conforma.rego"):
        found = table["ec.oci.image_manifests"]([two, f"{server.host}/r:none", one, "b ad", one])
    assert list(found) == sorted([one, two])
    assert found[one] == table["ec.oci.image_manifest"](one)
    assert [r.levelname for r in caplog.records if r.name == "conforma.rego"] == ["WARNING"] * 2
    assert table["ec.oci.image_manifests"]([]) == {}


def test_many_manifests_are_fetched_at_once(table: Table, server: RegistryServer) -> None:
    assert table["ec.oci.descriptor"](f"{server.host}/r:none") is Undefined  # we have met
    gates = [Gate(), Gate()]
    refs = []
    for gate, name in zip(gates, "ab", strict=True):
        digest = image_of([layer_of([Member(name)])]).put(server.store, "r")
        refs.append(f"{server.host}/r@{digest}")
        server.faults.add(Fault(hang=gate), path=str(digest))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(table["ec.oci.image_manifests"](refs)))
    thread.start()
    for gate in gates:
        gate.wait_reached(20)  # the second request came while the first one hung
    for gate in gates:
        gate.release()
    thread.join(20)
    assert set(found[0]) == set(refs)


def test_many_manifests_raise_an_outage(table: Table, server: RegistryServer) -> None:
    digest = image_of([layer_of([Member("a")])]).put(server.store, "r")
    server.faults.add(Fault(status=500), path="/broken/", times=None)
    with pytest.raises(RegistryUnreachable):
        table["ec.oci.image_manifests"]([f"{server.host}/r@{digest}", f"{server.host}/broken:x"])


# What belongs to an image


def test_tags_of_cosign_are_found_once_per_run(table: Table, server: RegistryServer) -> None:
    image = image_of([layer_of([Member("a")])])
    digest = image.put(server.store, "r", "tag")
    for suffix in ("att", "sig"):
        image.put(server.store, "r", f"sha256-{digest.hex}.{suffix}")
    expected = [f"{server.host}/r:sha256-{digest.hex}.{suffix}" for suffix in ("sig", "att")]
    for ref in (f"{server.host}/r:tag", f"{server.host}/r@{digest}"):
        assert table["ec.oci.image_tag_refs"](ref) == expected
    assert requests(server, "HEAD", ".sbom") == 1


def test_referrers_have_their_six_keys(table: Table, server: RegistryServer) -> None:
    image = image_of([layer_of([Member("a")])])
    digest = image.put(server.store, "r", "tag")
    assert table["ec.oci.image_referrers"](f"{server.host}/r:tag") == []
    other = image_of([layer_of([Member("b")])])
    subject = other.put(server.store, "r", "other")
    artifact = artifact_of(
        "application/spdx+json",
        [(b"{}", "t", {})],
        subject=other.descriptor,
        annotations={"k": "v"},
    )
    artifact.put(server.store, "r")
    assert digest != subject
    assert table["ec.oci.image_referrers"](f"{server.host}/r@{subject}") == [
        {
            "mediaType": media_types.OCI_MANIFEST,
            "size": len(artifact.manifest),
            "digest": str(artifact.digest),
            "artifactType": "application/spdx+json",
            "ref": f"{server.host}/r@{artifact.digest}",
            "annotations": {"k": "v"},
        }
    ]


# Files of images


@pytest.fixture
def image(server: RegistryServer) -> str:
    lower = layer_of(
        [
            Member("./manifests/a.yaml", b"low: 1"),
            Member("manifests/gone.yaml", b"gone: 1"),
            Member("usr/bin/su", b"x", mode=0o4755, uid=7, gid=8),
        ]
    )
    upper = layer_of(
        [
            Member("manifests/a.yaml", b"high: 1"),
            whiteout("manifests/gone.yaml"),
            Member("Manifests/B.JSON", b'{"b": 2}'),
            Member("manifests/sub/c.yaml", b"c: 3"),
            Member("manifests/d.txt", b"d: 4"),
            Member("manifests/bad.yml", b"{: :"),
            Member("other/e.yml", b"e: 5"),
            symlink("usr/bin/link", "su"),
        ]
    )
    return f"{server.host}/r@{image_of([lower, upper]).put(server.store, 'r', 'image')}"


def test_files_of_directories_of_the_unpacked_image(table: Table, image: str) -> None:
    files = table["ec.oci.image_files"]
    expected = {"manifests/a.yaml": {"high": 1}, "Manifests/B.JSON": {"b": 2}}
    assert files(image, ["manifests/"]) == expected
    assert files(image, ["manifests", "other"]) == {**expected, "other/e.yml": {"e": 5}}
    assert files(image, ["nothing"]) == {}
    assert files(image, []) is None


def test_the_tree_of_the_unpacked_image(table: Table, server: RegistryServer, image: str) -> None:
    tree = table["conforma.oci.image_tree"]
    (found,) = tree(image, {"mode": "6000"})
    layer = table["ec.oci.image_manifest"](image)["layers"][0]["digest"]
    assert found == {
        "path": "usr/bin/su", "kind": "file", "mode": 0o4755, "uid": 7, "gid": 8, "size": 1,
        "link_target": "", "layer": layer,
    }  # fmt: skip
    paths = [entry["path"] for entry in tree(image, {"paths": ["manifests/**"], "kinds": ["file"]})]
    assert paths == [
        "manifests/a.yaml",
        "manifests/bad.yml",
        "manifests/d.txt",
        "manifests/sub/c.yaml",
    ]
    (link,) = tree(image, {"kinds": ["symlink"]})
    assert link["link_target"] == "su"


def test_a_filter_with_a_mistake_is_the_rules_fault(table: Table, image: str) -> None:
    with pytest.raises(EvaluationFailed):
        table["conforma.oci.image_tree"](image, {"path": "x"})


@pytest.mark.parametrize("name", ["ec.oci.image_files", "conforma.oci.image_tree"])
def test_an_image_that_cannot_be_read_safely_is_not_taken_for_an_empty_one(
    table: Table, server: RegistryServer, name: str
) -> None:
    unsafe = layer_of([Member("../x.yaml", b"1")])
    broken = Layer(gzip.compress(b"no tar" * 500), Digest.of(b""), unsafe.diff_id)
    broken = Layer(broken.blob, Digest.of(broken.blob), type(unsafe.diff_id).of(b"no tar" * 500))
    argument = EVERY[name][0]
    for layer, error in ((unsafe, UnsafeArchive), (broken, BadArchive)):
        ref = f"{server.host}/r@{image_of([layer]).put(server.store, 'r')}"
        with pytest.raises(error):
            table[name](ref, argument)


def test_layers_are_fetched_once_for_all_functions(
    table: Table, server: RegistryServer, image: str
) -> None:
    table["ec.oci.image_files"](image, ["manifests"])
    table["conforma.oci.image_tree"](image, {})
    manifest = table["ec.oci.image_manifest"](image)
    for layer in manifest["layers"]:
        ref = f"{image.partition('@')[0]}@{layer['digest']}"
        assert table["ec.oci.blob_files"](ref, ["usr/bin/su"]) in ({}, {"usr/bin/su": "x"})
        assert requests(server, "GET", f"/blobs/{layer['digest']}") == 1


# Signatures


@pytest.fixture
def signed(server: RegistryServer) -> str:
    digest = image_of([layer_of([Member("a")])]).put(server.store, "r", "signed")
    signer = Signer(server.store, "r", KEY)
    signer.sign(digest)
    signer.attest(
        digest, statement("https://example.org/p", {"n": 12345678901234567890}, "r", digest)
    )
    return f"{server.host}/r@{digest}"


def options(key: SigningKey | None = KEY, **more: Any) -> dict[str, Any]:
    return {"ignore_rekor": True, "public_key": key.public_pem if key else "", **more}


def test_signatures_of_other_images_are_values(table: Table, signed: str) -> None:
    found = table["ec.sigstore.verify_image"](signed, options())
    assert found["success"] is True
    assert found["errors"] == []
    (signature,) = found["signatures"]
    assert set(signature) == {"keyid", "signature", "certificate", "chain", "metadata"}
    assert base64.b64decode(signature["signature"])


def test_attestations_of_other_images_are_values(table: Table, signed: str) -> None:
    found = table["ec.sigstore.verify_attestation"](signed, options())
    assert (found["success"], found["errors"]) == (True, [])
    (attestation,) = found["attestations"]
    assert attestation["statement"]["predicate"] == {"n": 12345678901234567890}
    assert len(attestation["signatures"]) == 1


@pytest.mark.parametrize("name", ["ec.sigstore.verify_image", "ec.sigstore.verify_attestation"])
@pytest.mark.parametrize(
    ("ref", "opts", "error"),
    [
        (3, {}, "ref parameter: operand 0 must be string but got number"),
        (
            "r:tag",
            {},
            "new digest: a digest must contain exactly one '@' separator "
            "(e.g. registry/repository@digest) saw: r:tag",
        ),
        ("SIGNED", "x", "opts parameter: opts parameter: operand 1 must be object but got string"),
        ("SIGNED", [], "opts parameter: opts parameter: operand 1 must be object but got array"),
        (
            "SIGNED",
            {},
            "opts parameter: new policy: certificate OIDC issuer must be provided for keyless "
            "workflow\ncertificate identity must be provided for keyless workflow",
        ),
        (
            "SIGNED",
            {"certificate_identity": "me", "public_key": 3},
            "opts parameter: new policy: certificate OIDC issuer must be provided for keyless workflow",
        ),
        (
            "SIGNED",
            {"public_key": "spam://x"},
            "opts parameter: new policy: loading URL: unrecognized scheme: spam://",
        ),
    ],
)
def test_wrong_arguments_are_told_in_the_answer(
    table: Table, signed: str, name: str, ref: Any, opts: Any, error: str
) -> None:
    found = table[name](signed if ref == "SIGNED" else ref, opts)
    member = "signatures" if name.endswith("image") else "attestations"
    assert found == {"success": False, "errors": [error], member: []}


def test_a_log_key_that_is_none_is_told(table: Table, signed: str) -> None:
    found = table["ec.sigstore.verify_image"](signed, options(rekor_public_key="spam"))
    assert found["success"] is False
    assert found["errors"][0].startswith("opts parameter: adding rekor public key: ")


def test_a_strangers_signature_is_told(table: Table, signed: str) -> None:
    for name, words in (
        ("image", "image signature"),
        ("attestation", "image attestation signature"),
    ):
        found = table[f"ec.sigstore.verify_{name}"](signed, options(OTHER_KEY))
        assert found["success"] is False
        assert found["errors"][0].startswith(f"verify {words}: no matching ")


def test_an_unsigned_image_is_told(table: Table, server: RegistryServer) -> None:
    digest = image_of([layer_of([Member("b")])]).put(server.store, "r")
    found = table["ec.sigstore.verify_image"](f"{server.host}/r@{digest}", options())
    assert found == {
        "success": False,
        "errors": ["verify image signature: no signatures found"],
        "signatures": [],
    }


def test_what_was_learnt_about_signatures_is_not_asked_again(
    table: Table, server: RegistryServer, signed: str
) -> None:
    first = table["ec.sigstore.verify_attestation"](signed, options())
    asked = len(list(server.log))
    assert table["ec.sigstore.verify_attestation"](signed, options()) == first
    assert len(list(server.log)) == asked


def test_an_outage_is_no_bad_signature(table: Table, server: RegistryServer, signed: str) -> None:
    rule = server.faults.add(Fault(status=500), times=None)
    with pytest.raises(RegistryUnreachable):
        table["ec.sigstore.verify_image"](signed, options())
    assert rule is not None
    server.faults.clear()
    # And it is not remembered.
    assert table["ec.sigstore.verify_image"](signed, options())["success"] is True


# From rules


def test_rules_get_the_values(
    table: Table, server: RegistryServer, image: str, rules: Callable[..., Ruleset]
) -> None:
    ruleset = rules(
        """
        package main
        import rego.v1
        manifest := ec.oci.image_manifest(input.ref)
        config := json.unmarshal(ec.oci.blob(sprintf("%s@%s", [input.repo, manifest.config.digest])))
        found := {path | some path, _ in ec.oci.image_files(input.ref, ["manifests"])}
        setuid := [e.path | some e in conforma.oci.image_tree(input.ref, {"mode": "6000"})]
        both := ec.oci.image_manifests({input.ref, input.absent})
        absent if not ec.oci.descriptor(input.absent)
        """
    )
    repo = image.partition("@")[0]
    document = {"ref": image, "repo": repo, "absent": f"{repo}:none"}
    names = ["config.architecture", "found", "setuid", "both", "absent"]
    answers = ruleset.evaluate(
        json.dumps(document).encode(), [f"data.main.{name}" for name in names], builtins=table
    )
    architecture, found, setuid, both, absent = (values[0] for values in answers)
    assert architecture == "amd64"
    assert found == ["Manifests/B.JSON", "manifests/a.yaml"]
    assert setuid == ["usr/bin/su"]
    assert list(both) == [image]
    assert absent is True


def test_an_outage_ends_the_evaluation_with_the_original_error(
    table: Table, server: RegistryServer, rules: Callable[..., Ruleset]
) -> None:
    ruleset = rules(
        """
        package main
        import rego.v1
        deny contains "inaccessible" if not ec.oci.descriptor(input.ref)
        """
    )
    server.faults.add(Fault(status=503), times=None)
    with pytest.raises(RegistryUnreachable):
        ruleset.evaluate(
            json.dumps({"ref": f"{server.host}/r:x"}).encode(), ["data.main.deny"], builtins=table
        )
