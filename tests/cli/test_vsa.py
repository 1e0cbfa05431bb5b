"""``--vsa`` and its companions: verdicts are signed, kept, found again, and doubted."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conforma.cli.root import run
from conforma.ledger.statement import Summary
from conforma.oci.digest import Digest
from conforma.serve.signing import policy_bundle
from conforma.serve.signing_key import SigningKey
from conforma.trust.keys import PublicKey
from tests.cli.shop import RULES, Outcome, Shop

pytestmark = pytest.mark.slow


class Vsa:
    """The shop with a pinned policy, a key for summaries, and a ledger."""

    def __init__(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shop = shop
        self.key = SigningKey.generate()
        self.directory = shop.directory
        self.private = self.directory / "vsa.key"
        self.private.write_text(self.key.private_pem)
        self.public = self.directory / "vsa.pub"
        self.public.write_text(self.key.public_pem)
        monkeypatch.setenv("CONFORMA_LEDGER_MEMORY", str(self.directory / "memory"))
        monkeypatch.chdir(self.directory)
        self.ledger = self.directory / "ledger"

    def with_ledger(self) -> str:
        keys = self.directory / "keys"
        assert run(["ledger", "init", str(self.ledger), f"--keys={keys}", "--bins=4"]) == 0
        return f"ledger@{self.ledger}?key={keys / 'online.pem'}"

    def push_policy(self, rules: str = RULES) -> str:
        policy_bundle({"main.rego": rules.encode()}).put(self.shop.server.store, "policy", "latest")
        return json.dumps(
            {"sources": [{"policy": [f"oci::{self.shop.server.host}/policy:latest"]}]}
        )

    def validate(
        self, *args: str, policy: str, upload: str, make: bool = True, **flags: str
    ) -> Outcome:
        making = {"vsa": "true", "vsa_signing_key": str(self.private)} if make else {}
        values = {
            "vsa_public_key": str(self.public),
            "vsa_upload": upload,
            "attestation_output_dir": str(self.directory / "out"),
        }
        return self.shop.validate(*args, policy=policy, **(values | making | flags))

    def requests(self, method: str, part: str) -> int:
        return len(self.shop.server.log.settled().matching(method, part))


@pytest.fixture
def vsa(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Vsa:
    return Vsa(shop, monkeypatch)


def skipped(done: Outcome, name: str = "web") -> str:
    component = done.component(name)
    assert component["success"] is True or "skipped" not in component
    return str(component.get("skipped", ""))


@pytest.mark.parametrize("kind", ["ledger", "local"])
def test_a_fresh_verdict_of_the_same_policy_spares_validation(vsa: Vsa, kind: str) -> None:
    digest = vsa.shop.publish("web")
    policy = vsa.push_policy()
    upload = vsa.with_ledger() if kind == "ledger" else f"local@{vsa.directory / 'shelf'}"
    first = vsa.validate(policy=policy, upload=upload)
    assert (first.status, first.err) == (0, "")
    assert not skipped(first)
    vsa.shop.server.log.clear()

    second = vsa.validate(policy=policy, upload=upload, make=False)
    assert (second.status, second.err) == (0, "")
    web = second.component("web")
    assert web["skipped"].startswith("passed at 20") and f"{kind}@" in web["skipped"]
    assert web["containerImage"] == vsa.shop.reference("web")  # the original reference
    assert set(web) == {"name", "containerImage", "source", "success", "skipped"}
    assert vsa.requests("GET", f"sha256-{digest.hex}") == 0  # no signature was looked at

    summary = vsa.validate(policy=policy, upload=upload, make=False, output="appstudio")
    assert json.loads(summary.out)["result"] == "SUCCESS"
    text = vsa.validate(policy=policy, upload=upload, make=False, output="text")
    assert "Skipped: passed at " in text.out


def test_a_spared_component_gets_no_new_verdict(vsa: Vsa) -> None:
    vsa.shop.publish("web")
    policy, upload = vsa.push_policy(), f"local@{vsa.directory / 'shelf'}"
    vsa.validate(policy=policy, upload=upload)
    before = sorted((vsa.directory / "shelf").iterdir())
    assert skipped(vsa.validate(policy=policy, upload=upload))
    assert sorted((vsa.directory / "shelf").iterdir()) == before


def doubtful_policy(vsa: Vsa) -> dict[str, Any]:
    return {"policy": vsa.push_policy(RULES + "\n# changed\n")}


def doubtful_digest(vsa: Vsa) -> dict[str, Any]:
    vsa.shop.components.clear()
    vsa.shop.publish("web", labels={"name": "another"})
    return {}


def doubtful_age(vsa: Vsa) -> dict[str, Any]:
    return {"vsa_expiration": "1ns"}


def doubtful_switched_off(vsa: Vsa) -> dict[str, Any]:
    return {"vsa_expiration": "0"}


def doubtful_signer(vsa: Vsa) -> dict[str, Any]:
    other = vsa.directory / "other.pub"
    other.write_text(SigningKey.generate().public_pem)
    return {"vsa_public_key": str(other)}


def doubtful_conditions(vsa: Vsa) -> dict[str, Any]:
    return {"filter_type": "ec-policy"}


def doubtful_rule_data(vsa: Vsa) -> dict[str, Any]:
    return {"extra_rule_data": "a=b"}


@pytest.mark.parametrize(
    "doubt",
    [
        doubtful_policy,
        doubtful_digest,
        doubtful_age,
        doubtful_switched_off,
        doubtful_signer,
        doubtful_conditions,
        doubtful_rule_data,
    ],
    ids=lambda doubt: doubt.__name__,
)
@pytest.mark.parametrize("kind", ["ledger", "local"])
def test_in_doubt_a_component_is_validated_again(
    vsa: Vsa, kind: str, doubt: Callable[[Vsa], dict[str, Any]]
) -> None:
    vsa.shop.publish("web")
    policy = vsa.push_policy()
    upload = vsa.with_ledger() if kind == "ledger" else f"local@{vsa.directory / 'shelf'}"
    vsa.validate(policy=policy, upload=upload)
    assert skipped(vsa.validate(policy=policy, upload=upload, make=False))
    flags = {"policy": policy} | doubt(vsa)
    again = vsa.validate(upload=upload, make=False, **flags)
    assert again.status == 0 and not skipped(again)


def test_a_lenient_verdict_does_not_stand_for_a_strict_one(vsa: Vsa) -> None:
    vsa.shop.publish("web", signed=False)
    policy, upload = vsa.push_policy(), vsa.with_ledger()
    lenient = vsa.validate("--skip-image-sig-check", policy=policy, upload=upload)
    assert lenient.status == 0
    assert skipped(vsa.validate("--skip-image-sig-check", policy=policy, upload=upload, make=False))
    strict = vsa.validate(policy=policy, upload=upload, make=False)
    assert strict.status == 1 and not skipped(strict)


@pytest.mark.parametrize("kind", ["ledger", "local"])
def test_the_last_word_counts(vsa: Vsa, kind: str) -> None:
    vsa.shop.publish("web")
    policy = vsa.push_policy()
    upload = vsa.with_ledger() if kind == "ledger" else f"local@{vsa.directory / 'shelf'}"
    vsa.validate(policy=policy, upload=upload)
    wrong = vsa.shop.key_file(SigningKey.generate())
    failed = vsa.validate(policy=policy, upload=upload, public_key=wrong, vsa_expiration="0")
    assert failed.status == 1  # under another key, so the pass above still stands
    assert skipped(vsa.validate(policy=policy, upload=upload, make=False))
    repository = vsa.shop.server.store.repository("shop/web")
    (signature,) = (tag for tag in repository.tags if tag.endswith(".sig"))
    repository.delete_manifest(signature)
    failed = vsa.validate(policy=policy, upload=upload, vsa_expiration="0")
    assert failed.status == 1
    again = vsa.validate(policy=policy, upload=upload, make=False)
    assert again.status == 1 and not skipped(again)


def test_an_unpinned_policy_spares_nobody_and_says_why(vsa: Vsa) -> None:
    vsa.shop.publish("web")
    policy, upload = vsa.shop.policy(), f"local@{vsa.directory / 'shelf'}"
    vsa.validate(policy=policy, upload=upload, vsa_expiration="0")
    done = vsa.validate(policy=policy, upload=upload, make=False)
    assert done.status == 0 and not skipped(done)
    assert "existing VSAs are not used: the content of policy source file::" in done.err


def test_a_ledger_that_does_not_verify_costs_time_and_a_warning(vsa: Vsa) -> None:
    vsa.shop.publish("web")
    policy, upload = vsa.push_policy(), vsa.with_ledger()
    vsa.validate(policy=policy, upload=upload)
    for snapshot in (vsa.ledger / "metadata").glob("*.snapshot.json"):
        snapshot.write_bytes(snapshot.read_bytes().replace(b'"sig":"', b'"sig":"0'))
    done = vsa.validate(policy=policy, upload=upload, make=False)
    assert done.status == 0 and not skipped(done)
    assert "Failed to validate existing VSA for image" in done.err
    assert "failed to check existing VSA: ledger" in done.err


def test_what_is_written_is_what_the_specification_says(vsa: Vsa) -> None:
    digest = vsa.shop.publish("web")
    vsa.validate(policy=vsa.push_policy(), upload=f"local@{vsa.directory / 'shelf'}")
    out = vsa.directory / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "application-snapshot-vsa.json",
        "application-snapshot-vsa.json.intoto.jsonl",
        "vsa-web.json",
        "vsa-web.json.intoto.jsonl",
    ]
    text = (out / "vsa-web.json").read_text()
    assert (out / "vsa-web.json").stat().st_mode & 0o777 == 0o600
    predicate = json.loads(text)
    image = f"{vsa.shop.server.host}/shop/web@{digest}"
    assert text.startswith('{\n  "policy": {\n    "sources": [')
    assert list(predicate) == [
        "policy",
        "policySource",
        "imageRefs",
        "timestamp",
        "status",
        "verifier",
        "summary",
        "publicKey",
        "conditions",  # --ignore-rekor is not how one usually validates
    ]
    assert predicate["imageRefs"] == [image]
    assert (predicate["status"], predicate["verifier"]) == ("passed", "conforma")
    assert predicate["policy"]["sources"][0]["policy"][0].startswith("oci::127.0.0.1:")
    assert predicate["publicKey"] == vsa.shop.key.public_pem
    assert list(predicate["summary"]) == [
        "violations",
        "warnings",
        "successes",
        "Components",
        "component",
    ]
    assert predicate["summary"]["Components"] == [
        {"Name": "web", "ImageRef": image, "Violations": 0, "Warnings": 0, "Successes": 0}
    ]
    assert predicate["summary"]["component"]["containerImage"] == image
    envelope = json.loads((out / "vsa-web.json.intoto.jsonl").read_text())
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert envelope["signatures"][0]["keyid"] == ""
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v0.1"
    assert statement["predicateType"] == "https://conforma.dev/verification_summary/v1"
    assert statement["subject"] == [
        {"name": f"{vsa.shop.server.host}/shop/web", "digest": {"sha256": digest.hex}}
    ]
    assert statement["predicate"] == predicate
    summary = Summary.parse((out / "vsa-web.json.intoto.jsonl").read_bytes())
    assert summary.envelope is not None
    PublicKey(vsa.key.public_pem).verify(
        summary.envelope.signatures[0].value, summary.envelope.signed_bytes
    )
    snapshot = Summary.parse((out / "application-snapshot-vsa.json.intoto.jsonl").read_bytes())
    assert snapshot.name == "application-snapshot"
    assert snapshot.digest == Digest.of((out / "application-snapshot-vsa.json").read_bytes())
    assert len(list((vsa.directory / "shelf").iterdir())) == 2


def test_predicates_are_neither_signed_nor_uploaded(vsa: Vsa) -> None:
    vsa.shop.publish("web")
    shelf = vsa.directory / "shelf"
    done = vsa.validate(
        policy=vsa.push_policy(),
        upload=f"local@{shelf}",
        attestation_format="predicate",
        vsa_signing_key="",
    )
    assert (done.status, done.err) == (0, "")
    assert [path.name for path in (vsa.directory / "out").iterdir()] == ["vsa-web.json"]
    assert not shelf.exists()


def test_a_file_has_the_name_of_its_component_but_for_what_names_a_place(vsa: Vsa) -> None:
    vsa.shop.publish("web")
    names = ("Unnamed-sha256:12-amd64", "a b ü", "../up")
    for name in names:
        vsa.shop.components.append({**vsa.shop.components[0], "name": name})
    done = vsa.validate(
        policy=vsa.push_policy(), upload="", attestation_format="predicate", vsa_signing_key=""
    )
    assert done.status == 0
    assert {path.name for path in (vsa.directory / "out").iterdir()} == {
        "vsa-web.json",
        "vsa-Unnamed-sha256:12-amd64.json",
        "vsa-a b ü.json",
        "vsa--up.json",
    }


def test_without_a_place_to_go_summaries_are_made_and_it_is_said(vsa: Vsa) -> None:
    vsa.shop.publish("web")
    done = vsa.validate(policy=vsa.push_policy(), upload="")
    assert done.status == 0
    assert "[VSA] VSA files generated but not uploaded (no --vsa-upload backends specified)" in (
        done.err
    )


def test_a_place_nobody_knows_is_a_warning_for_each_summary(vsa: Vsa) -> None:
    vsa.shop.publish("web")
    policy, shelf = vsa.push_policy(), vsa.directory / "shelf"
    done = vsa.validate(policy=policy, upload=f"ftp@x,local@{shelf}", vsa_expiration="0")
    warning = (
        "level=warning msg=\"invalid storage config 'ftp@x': unsupported backend 'ftp'. "
        'Supported backends: rekor, local"'
    )
    assert done.status == 0
    assert [line.partition(" ")[2] for line in done.err.splitlines()] == [warning] * 2
    assert len(list(shelf.iterdir())) == 2, "the component's and the snapshot's"
    alone = vsa.validate(policy=policy, upload="ftp@x", vsa_expiration="0")
    assert "no --vsa-upload backends specified" not in alone.err
    unsigned = vsa.validate(policy=policy, upload="ftp@x", make=False)
    assert [line.partition(" ")[2] for line in unsigned.err.splitlines()] == [warning]


def test_a_verdict_that_cannot_be_kept_is_an_error_in_the_log_and_still_a_verdict(
    vsa: Vsa,
) -> None:
    vsa.shop.publish("web")
    done = vsa.validate(policy=vsa.push_policy(), upload=f"ledger@{vsa.directory / 'none'}")
    assert done.status == 0
    assert "[VSA] Failed to upload summary to ledger@" in done.err and "ledger.json" in done.err


def test_files_go_only_where_they_may(vsa: Vsa) -> None:
    vsa.shop.publish("web")
    done = vsa.validate(policy=vsa.push_policy(), upload="", attestation_output_dir="/var/x")
    assert done.status == 1
    assert (
        "invalid attestation output directory: attestation output directory must be under /tmp "
        "or current working directory, got: /var/x" in done.err
    )


def test_the_ledger_answers_for_the_digest_and_verifies(
    vsa: Vsa, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = vsa.shop.publish("web")
    vsa.validate(policy=vsa.push_policy(), upload=vsa.with_ledger())
    capsys.readouterr()
    assert run(["ledger", "get", str(vsa.ledger), f"x@{digest}"]) == 0
    assert Summary.parse(capsys.readouterr().out.encode()).digest == digest
    assert run(["ledger", "verify", str(vsa.ledger), f"--public-key={vsa.public}"]) == 0
    assert "2 summaries" in capsys.readouterr().out
    assert run(["ledger", "get", str(vsa.ledger), f"sha256:{'0' * 64}"]) == 1
    Path(vsa.directory / "other.pub").write_text(SigningKey.generate().public_pem)
    other = f"--public-key={vsa.directory / 'other.pub'}"
    assert run(["ledger", "verify", str(vsa.ledger), other]) == 3
    assert "no signature by the given key" in capsys.readouterr().err
