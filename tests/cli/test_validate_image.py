"""``conforma validate image`` from flags to exit status, against a real registry and engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor, Platform
from conforma.oci.media_types import OCI_INDEX
from conforma.serve.faults import Fault, Gate
from conforma.serve.images import image_of, index_of
from conforma.serve.signing import Signer, add_tag_layer
from conforma.serve.signing_key import SigningKey
from conforma.serve.statements import Build, provenance_v02
from tests.cli.shop import Outcome, Shop

pytestmark = pytest.mark.slow
DSSE = "application/vnd.dsse.envelope.v1+json"


def codes(findings: list[dict[str, object]]) -> list[object]:
    return [f.get("metadata", {}).get("code") for f in findings]  # type: ignore[attr-defined]


def test_a_good_release_passes(shop: Shop) -> None:
    digest = shop.publish("web")
    done = shop.validate("--show-successes")
    assert (done.status, done.err) == (0, "")
    assert done.out.endswith("}\n") and done.out.count("\n") == 1
    report = done.report
    assert report["success"] is True
    assert report["key"] == shop.key.public_pem
    assert report["ec-version"].startswith("v")
    (web,) = report["components"]
    assert web["name"] == "web"
    assert web["containerImage"] == f"{shop.server.host}/shop/web@{digest}"
    assert codes(web["successes"]) == [
        "builtin.attestation.signature_check",
        "builtin.attestation.syntax_check",
        "builtin.image.signature_check",
        "main.named",
        "main.no_debug",
    ]
    assert web["signatures"][0]["keyid"] == ""
    assert web["attestations"][0]["predicateType"] == "https://slsa.dev/provenance/v0.2"
    assert "undecided" not in report and "error" not in web


def test_what_the_rules_deny_fails_and_strict_decides_about_the_status(shop: Shop) -> None:
    shop.publish("web", labels={"debug": "true"})
    done = shop.validate()
    assert done.status == 1
    assert done.err == "Error: success criteria not met\n"
    assert done.report["components"][0]["violations"] == [
        {"msg": "Built for debugging", "metadata": {"code": "main.no_debug"}}
    ]
    lenient = shop.validate("--strict=false")
    assert (lenient.status, lenient.err) == (0, "")
    assert lenient.report["success"] is False


def test_info_keeps_what_rules_say_about_themselves(shop: Shop) -> None:
    shop.publish("web", labels={"debug": "true"})
    (violation,) = shop.validate("--info").report["components"][0]["violations"]
    assert violation["metadata"] == {
        "code": "main.no_debug",
        "title": "No debug labels",
        "description": "Images must not be built for debugging. To exclude this rule add "
        '"main.no_debug" to the `exclude` section of the policy configuration.',
        "solution": "Build it again.",
    }


def test_text_is_what_people_get(shop: Shop) -> None:
    shop.publish("web", labels={"debug": "true"})
    done = shop.validate(output="")
    assert done.out.startswith(
        "Success: false\nResult: FAILURE\nViolations: 1, Warnings: 0, Successes: 4\n"
        "Component: web\n"
    )
    assert "✕ [Violation] main.no_debug\n" in done.out


def test_an_image_that_is_not_there_is_a_violation(shop: Shop) -> None:
    shop.components.append({"name": "web", "containerImage": shop.reference("web")})
    done = shop.validate()
    assert done.status == 1
    web = done.component("web")
    assert web["containerImage"] == shop.reference("web")
    (violation,) = web["violations"]
    assert violation["metadata"] == {"code": "builtin.image.accessible"}
    assert violation["msg"].startswith("Image URL is not accessible: ")
    assert "404 Not Found" in violation["msg"]


def test_another_key_means_no_matching_signature_and_no_rules(shop: Shop) -> None:
    shop.publish("web", labels={"debug": "true"})
    done = shop.validate(public_key=shop.key_file(SigningKey.generate()))
    attestation, image = done.component("web")["violations"]
    assert attestation["metadata"] == {"code": "builtin.attestation.signature_check"}
    assert attestation["msg"].startswith(
        "No image attestations found matching the given public key. Verify the correct public "
        "key was provided, and one or more attestations were created. Error: no matching "
        "attestations: "
    )
    assert image["metadata"] == {"code": "builtin.image.signature_check"}
    assert image["msg"].startswith(
        "No image signatures found matching the given public key. Verify the correct public key "
        "was provided, and a signature was created. Error: no matching signatures: "
    )


def test_an_unsigned_image_says_so(shop: Shop) -> None:
    shop.publish("web", signed=False)
    (violation,) = shop.validate().component("web")["violations"]
    assert violation["msg"] == "Image signature check failed: no signatures found"


def test_skipped_checks_leave_no_result_and_a_warning(shop: Shop) -> None:
    shop.publish("web", signed=False)
    other = Signer(shop.server.store, "shop/api", SigningKey.generate())
    digest = shop.publish("api", signed=False, attested=False)
    other.attest(digest, provenance_v02(Build(f"{shop.server.host}/shop/api", digest)))
    done = shop.validate("--skip-image-sig-check", "--skip-att-sig-check", "--show-successes")
    assert done.status == 0
    for name in ("web", "api"):
        assert codes(done.component(name)["successes"])[0] == "builtin.attestation.syntax_check"
    assert [line.partition(" ")[2] for line in done.err.splitlines()] == [
        'level=warning msg="Image signature check skipped"',
        'level=warning msg="Attestation signature check skipped, fetching attestations '
        'without verification"',
        'level=warning msg="Both --skip-image-sig-check and --skip-att-sig-check are active, '
        'all cryptographic verification is disabled"',
    ]


def test_without_any_attestation_two_violations_say_so(shop: Shop) -> None:
    shop.publish("web", attested=False)
    done = shop.validate("--skip-att-sig-check")
    assert [v["msg"] for v in done.component("web")["violations"]] == [
        "No attestations contain a subject that match the given image.",
        "Attestation syntax check failed: no attestation data",
    ]


@pytest.mark.parametrize(
    ("fault", "path", "reason"),
    [
        (Fault(status=500), "/shop/api/", "INTERNAL_SERVER_ERROR"),
        (Fault(status=401), "/shop/api/", "UNAUTHORIZED"),
        (Fault(reset_at=0), "/shop/api/", ""),
        (Fault(status=503), r"/shop/api/manifests/sha256-.*\.sig", ".sig: "),
        (Fault(status=503), r"/shop/api/manifests/sha256-.*\.att", ".att: "),
        (Fault(status=500), "/shop/api/blobs/", "INTERNAL_SERVER_ERROR"),
        (Fault(flip_at=20), "/shop/api/blobs/", "sha256"),
    ],
)
def test_what_could_not_be_found_out_is_no_verdict(
    shop: Shop, fault: Fault, path: str, reason: str
) -> None:
    shop.publish("web")
    shop.publish("api")
    shop.server.faults.add(fault, path=path, times=None)
    done = shop.validate()
    assert done.status == 3
    api, web = done.component("api"), done.component("web")
    assert web["success"] is True
    assert api["success"] is False and "violations" not in api
    assert reason in api["error"]
    assert "shop/api" in api["error"]
    assert done.report["success"] is False and done.report["undecided"] == 1
    lines = [line for line in done.err.splitlines() if not line.startswith("time=")]
    assert lines[0].startswith(
        f"Error: error validating image {shop.reference('api')} of component api: "
    )


def publish_index(shop: Shop, tag: str = "1.0") -> tuple[Digest, list[Digest]]:
    """Two platforms and their index, all signed and attested; the arm64 image is a bad one."""
    children = [
        image_of(
            [], platform=Platform("linux", arch), labels={"debug": str(arch == "arm64").lower()}
        )
        for arch in ("amd64", "arm64")
    ]
    index = index_of(children)
    digest = index.put(shop.server.store, "shop/multi", tag)
    signer = Signer(shop.server.store, "shop/multi", shop.key)
    for each in (digest, *(child.digest for child in children)):
        signer.sign(each)
        signer.attest(each, provenance_v02(Build(f"{shop.server.host}/shop/multi", each)))
    return digest, [child.digest for child in children]


def test_an_index_is_expanded_into_its_images(shop: Shop) -> None:
    digest, children = publish_index(shop)
    shop.components.append({"name": "multi", "containerImage": shop.reference("multi")})
    done = shop.validate()
    assert done.status == 1, done.err
    names = {c["name"]: c["containerImage"] for c in done.report["components"]}
    assert names == {
        "multi": f"{shop.server.host}/shop/multi@{digest}",
        f"multi-{children[0]}-amd64": f"{shop.server.host}/shop/multi@{children[0]}",
        f"multi-{children[1]}-arm64": f"{shop.server.host}/shop/multi@{children[1]}",
    }
    images = [c["containerImage"] for c in done.report["components"]]
    assert images == sorted(images, reverse=True)
    passed = {c["name"] for c in done.report["components"] if c["success"]}
    assert names.keys() - passed == {f"multi-{children[1]}-arm64"}


@pytest.mark.parametrize(
    ("fault", "method"),
    [
        (Fault(status=503), "GET"),
        (Fault(headers={"Content-Type": "application/vnd.oci.image.manifest.v1+json"}), "HEAD"),
    ],
    ids=["unreadable at first", "called an image at first"],
)
def test_an_index_that_was_not_expanded_does_not_pass(
    shop: Shop, fault: Fault, method: str
) -> None:
    publish_index(shop)
    shop.components.append({"name": "multi", "containerImage": shop.reference("multi")})
    shop.server.faults.add(fault, method=method, path="/shop/multi/manifests/(1.0|sha256:)")
    done = shop.validate()
    assert done.status in (1, 3), done.out
    assert not done.report["success"]


def test_an_index_inside_an_index_does_not_pass(shop: Shop) -> None:
    publish_index(shop, "inner")
    inner = shop.server.store.repository("shop/multi").find("inner")
    assert inner is not None
    within = Descriptor(OCI_INDEX, inner[0], len(inner[1].raw), platform=Platform("linux", "arm64"))
    raw = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [within.as_dict()]}
    ).encode()
    outer = shop.server.store.repository("shop/multi").put_manifest(raw, OCI_INDEX, tag="1.0")
    signer = Signer(shop.server.store, "shop/multi", shop.key)
    signer.sign(outer)
    signer.attest(outer, provenance_v02(Build(f"{shop.server.host}/shop/multi", outer)))
    shop.components.append({"name": "multi", "containerImage": shop.reference("multi")})
    done = shop.validate()
    assert done.status == 3
    nested = next(c for c in done.report["components"] if c["name"] != "multi")
    assert "is not among the components" in nested["error"]


def test_a_manifest_that_is_announced_and_withheld_is_no_absence(shop: Shop) -> None:
    digest = shop.publish("web")
    shop.server.faults.add(
        Fault(status=404), method="GET", path=f"/shop/web/manifests/(1.0|{digest})", times=None
    )
    done = shop.validate()
    assert done.status == 3
    assert "the registry has the manifest, and does not give it" in done.component("web")["error"]


def same(done: Outcome) -> dict[str, object]:
    return {k: v for k, v in done.report.items() if k != "effective-time"}


def test_neither_workers_nor_the_cache_change_the_report(shop: Shop) -> None:
    for name in ("web", "api", "db", "cron"):
        shop.publish(name, labels={"debug": "true" if name == "db" else "false"})
    reports = [
        shop.validate(workers="1", output="json"),
        shop.validate(workers="8"),
        shop.validate("--no-cache", workers="3"),
    ]
    assert same(reports[0]) == same(reports[1]) == same(reports[2])
    assert {done.status for done in reports} == {1}


def test_policy_input_and_attestations_are_written_as_judged_and_signed(shop: Shop) -> None:
    shop.publish("web")
    inputs, statements = shop.directory / "input", shop.directory / "att"
    shop.validate(output=f"policy-input={inputs},attestation={statements}")
    document = json.loads(inputs.read_text())
    assert document["component_name"] == "web"
    assert document["image"]["config"] == {"Labels": {"name": "web"}}
    assert document["attestations"][0]["statement"] == json.loads(statements.read_text())


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("package main\n\ndeny contains {", "main.rego:3: rego_parse_error"),
        (
            'package main\nimport rego.v1\ndeny contains "x" if http.send({})',
            "main.rego:3: rego_type_error: undefined function http.send",
        ),
        (
            'package main\nimport rego.v1\ndeny contains "x" if ec.oci.blobb("x")',
            "main.rego:3: rego_type_error: undefined function ec.oci.blobb",
        ),
    ],
)
def test_a_policy_that_does_not_compile_is_an_error_without_a_report(
    shop: Shop, rules: str, message: str
) -> None:
    shop.publish("web")
    file = shop.directory / "report.json"
    policy = shop.policy(shop.rules(rules))
    done = shop.validate(policy=policy, output=f"json={file},text")
    assert (done.status, done.out, file.exists()) == (1, "", False)
    assert done.err.startswith(
        f"Error: error validating image {shop.reference('web')} of component web: "
    )
    assert message in done.err


def test_a_policy_without_rules_is_an_error(shop: Shop) -> None:
    shop.publish("web")
    empty = shop.directory / "empty"
    empty.mkdir()
    done = shop.validate(policy=shop.policy(str(empty)))
    assert (done.status, done.out) == (1, "")
    assert "no rego files found in policy subdirectory" in done.err


def test_everything_wrong_with_the_input_is_told_at_once(shop: Shop) -> None:
    done = shop.validate("--vsa", images='{"invalid": "json""}', policy='{"invalid": "json""}')
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[:3] == [
        'Error: unable to parse Snapshot specification from {"invalid": "json""}: '
        "error converting YAML to JSON: yaml: found unexpected end of stream",
        "unable to parse EnterpriseContractPolicySpec: "
        "error converting YAML to JSON: yaml: found unexpected end of stream",
        "--vsa-signing-key required for --attestation-format=dsse",
    ]
    assert not list(shop.server.log), "nothing was asked of a registry"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"images": ""}, "neither Snapshot nor image reference provided to validate"),
        ({"images": "components: []"}, "the snapshot has no components"),
        ({"images": "not-there.yaml"}, "unable to parse Snapshot specification from not-there"),
        ({"file_path": "not-there.yaml"}, "open not-there.yaml: no such file or directory"),
        ({"output": "spam"}, '"spam" is not a valid report format'),
        ({"filter_type": "spam"}, 'invalid --filter-type: "spam"'),
        ({"public_key": "no-such.pub"}, "no-such.pub"),
        ({"public_key": "-----BEGIN PUBLIC KEY-----\nx"}, "open -----BEGIN PUBLIC KEY"),
        ({"public_key": ""}, "certificate OIDC issuer must be provided for keyless workflow"),
        ({"effective_time": "soon"}, "invalid policy time argument: "),
        ({"effective_time": "2001-01-01"}, "is in the past; use --allow-past-effective-time"),
        ({"extra_rule_data": "a,b=c"}, "incorrect syntax for --extra-rule-data 0"),
        ({"cache_size": "huge"}, '--cache-size: "huge" is not a size'),
        ({"policy": "sources: [{policy: [http://x.example/y]}]"}, "insecure source"),
        (
            {"vsa": "true", "vsa_signing_key": "none.key"},
            'resolve private key "none.key": read key from file "none.key": open none.key: no such',
        ),
        ({"vsa": "true", "attestation_format": "x"}, "invalid --attestation-format: x"),
        ({"vsa_upload": "rekor"}, "--vsa-public-key required when --vsa-upload is set"),
    ],
)
def test_unusable_input_is_exit_status_one(shop: Shop, flags: dict[str, str], message: str) -> None:
    shop.publish("web")
    policy = flags.pop("policy", None)
    done = shop.validate(policy=policy, **flags)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("Error: ") and message in done.err


def test_an_unparsable_reference_hides_nobody(shop: Shop) -> None:
    shop.publish("web")
    shop.components.append({"name": "bad", "containerImage": "UPPER/case@sha256:zz"})
    done = shop.validate()
    assert done.status == 1
    assert done.component("web")["success"] is True
    assert "could not parse reference: UPPER/case@sha256:zz" in done.component("bad")["error"]


def test_evidence_that_is_damaged_or_about_another_image_is_a_violation(shop: Shop) -> None:
    store = shop.server.store
    damaged = shop.publish("damaged", attested=False)
    add_tag_layer(store, "shop/damaged", damaged, "att", b"not dsse", DSSE, {})
    stranger = shop.publish("stranger", attested=False)
    Signer(store, "shop/stranger", shop.key).attest(
        stranger, provenance_v02(Build(f"{shop.server.host}/shop/stranger", damaged))
    )
    done = shop.validate()
    assert done.status == 1
    for name in ("damaged", "stranger"):
        (violation,) = done.component(name)["violations"]
        assert violation["metadata"] == {"code": "builtin.attestation.signature_check"}
        assert "signatures" not in done.component(name)
    assert "no matching subject digest found" in done.component("stranger")["violations"][0]["msg"]


@pytest.mark.parametrize("text", ["", "sources: []", "# all: commented out\n"])
def test_a_policy_that_holds_no_rules_is_refused(shop: Shop, text: str) -> None:
    shop.publish("web")
    file = shop.directory / "policy.yaml"
    file.write_text(text)
    done = shop.validate(policy=str(file) if text else "")
    assert (done.status, done.out) == (1, "")
    assert "hint: " in done.err


def test_an_empty_policy_says_what_is_missing(shop: Shop) -> None:
    done = shop.validate(policy="sources: []", image="registry.invalid/web", images="")
    assert done.status == 1
    assert done.err == (
        "Error: the policy has no sources, so no rule would judge any image\n"
        "hint: leave --policy out to check only signatures and attestations\n"
    )


def test_without_a_policy_there_are_the_built_in_checks_and_a_warning(shop: Shop) -> None:
    shop.publish("web")
    done = shop.validate("--show-successes", policy=shop.NO_POLICY)
    assert done.status == 0
    assert "only signatures and attestations are checked" in done.err
    assert len(done.component("web")["successes"]) == 3
    assert list(done.report["policy"]) == ["publicKey"]


def test_an_unusable_cache_directory_costs_time_only(shop: Shop) -> None:
    shop.publish("web")
    file = shop.directory / "file"
    file.write_text("")
    done = shop.validate(cache_dir=str(file))
    assert done.status == 0
    assert 'level=warning msg="layers are not cached in this run: ' in done.err


def test_each_component_has_its_own_effective_time(shop: Shop) -> None:
    shop.publish("web")
    done = shop.validate(effective_time="attestation")
    assert done.report["effective-time"] == "2026-01-05T10:07:31Z"


def test_when_time_is_up_the_report_says_who_was_not_decided(shop: Shop) -> None:
    shop.publish("web")
    shop.publish("api")
    gate = Gate()
    shop.server.faults.add(Fault(hang=gate), path="/shop/api/manifests/sha256-", times=None)
    try:
        done = shop.validate(timeout="3s")
    finally:
        gate.release()
    assert done.status == 3
    assert done.component("web")["success"] is True
    assert "exceeded allowed execution time of 3s" in done.component("api")["error"]


def test_when_time_is_up_while_indexes_are_looked_for_the_report_says_so(shop: Shop) -> None:
    shop.publish("web")
    shop.publish("api")
    gate = Gate()
    shop.server.faults.add(Fault(hang=gate), path="/shop/api/manifests/1.0", times=None)
    try:
        done = shop.validate(timeout="2s")
    finally:
        gate.release()
    assert done.status == 3
    for name in ("web", "api"):
        assert "exceeded allowed execution time of 2s" in done.component(name)["error"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_run_and_writes_no_report(
    shop: Shop, number: signal.Signals
) -> None:
    shop.publish("web")
    gate = Gate()
    shop.server.faults.add(Fault(hang=gate), path="/shop/web/manifests/", times=None)
    file = shop.directory / "report.json"
    with subprocess.Popen(
        [
            sys.executable, "-m", "conforma", "validate", "image",
            f"--policy={shop.policy()}", f"--public-key={shop.key_file()}",
            f"--image={shop.reference('web')}", f"--output=json={file}", "--ignore-rekor",
            f"--cache-dir={shop.directory / 'cache'}",
        ],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    ) as process:  # fmt: skip
        gate.wait_reached(20)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    gate.release()
    assert process.returncode == 130
    assert err == "Error: interrupted\n"
    assert not file.exists()


def test_output_file_is_json_and_nothing_goes_to_standard_output(shop: Shop) -> None:
    shop.publish("web")
    file: Path = shop.directory / "o.json"
    done = shop.validate(output="", output_file=str(file))
    assert (done.status, done.out) == (0, "")
    assert json.loads(file.read_text())["success"] is True


@pytest.mark.parametrize(("status", "warned"), [(503, True), (403, False), (404, False)])
def test_a_parent_that_cannot_be_reached_is_told(shop: Shop, status: int, warned: bool) -> None:
    base = f"{shop.server.host}/base/os@sha256:{'0' * 64}"
    image = image_of([], annotations={"org.opencontainers.image.base.name": base})
    digest = image.put(shop.server.store, "shop/web", "1.0")
    signer = Signer(shop.server.store, "shop/web", shop.key)
    signer.sign(digest)
    signer.attest(digest, provenance_v02(Build(f"{shop.server.host}/shop/web", digest)))
    shop.components.append({"name": "web", "containerImage": shop.reference("web")})
    shop.server.faults.add(Fault(status=status), path="/v2/base/os/", times=None)
    done = shop.validate()
    assert done.status == 0
    assert ("without its parent image" in done.err) is warned
