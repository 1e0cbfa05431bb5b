"""``conforma lookup``: what references mean, many at once, each on its own."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conforma.cli.root import run
from conforma.oci import media_types
from conforma.oci.manifest import Platform
from conforma.serve.auth import BearerAuth
from conforma.serve.faults import Fault, Gate
from conforma.serve.images import Member, image_of, index_of, layer_of
from conforma.serve.registry import RegistryServer
from tests.cli.shop import Outcome, Shop

QUICK = ("--retry-max-retry", "0")


def look(shop: Shop, *args: str) -> Outcome:
    shop.capture.readouterr()
    status = run(["lookup", "--cache-dir", str(shop.directory / "cache"), *QUICK, *args])
    captured = shop.capture.readouterr()
    return Outcome(status, captured.out, captured.err)


def as_json(shop: Shop, *args: str) -> tuple[int, list[dict[str, Any]]]:
    done = look(shop, "--output", "json", *args)
    return done.status, json.loads(done.out)


def test_everything_about_an_image_is_told(shop: Shop) -> None:
    digest = shop.publish("web")
    status, (web,) = as_json(shop, shop.reference("web"))
    assert status == 0
    manifest = json.loads(shop.images["web"].manifest)
    assert web == {
        "reference": shop.reference("web"),
        "status": "found",
        "pinned": f"{shop.server.host}/shop/web@{digest}",
        "digest": str(digest),
        "mediaType": media_types.OCI_MANIFEST,
        "size": len(shop.images["web"].manifest),
        "contentSize": manifest["config"]["size"] + manifest["layers"][0]["size"],
        "platforms": ["linux/amd64"],
        "annotations": {},
        "signatures": 1,
        "attestations": 1,
        "sboms": 0,
    }


def test_indexes_name_their_platforms_and_annotations(shop: Shop) -> None:
    images = [
        image_of([layer_of([Member("etc/n", name.encode())])], platform=Platform("linux", name))
        for name in ("amd64", "arm64")
    ]
    index_of(images, annotations={"org.example": "x"}).put(shop.server.store, "multi", "v1")
    _, (found,) = as_json(shop, f"{shop.server.host}/multi:v1")
    assert found["platforms"] == ["linux/amd64", "linux/arm64"]
    assert found["annotations"] == {"org.example": "x"}
    assert found["contentSize"] is None


def test_referrers_count_by_what_they_are(shop: Shop) -> None:
    shop.publish("web", signed=False, attested=False)
    digest = shop.images["web"].digest
    subject = shop.images["web"].descriptor.as_dict()
    for n, (kind, notes) in enumerate(
        [
            ("application/spdx+json", {}),
            ("application/vnd.dev.cosign.artifact.sig.v1+json", {}),
            (
                "application/vnd.dev.sigstore.bundle.v0.3+json",
                {"dev.sigstore.bundle.content": "message-signature"},
            ),
            (
                "application/vnd.dev.sigstore.bundle.v0.3+json",
                {"dev.sigstore.bundle.content": "dsse-envelope"},
            ),
            ("application/vnd.example.other", {}),
        ]
    ):
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "artifactType": kind,
            "config": {
                "mediaType": media_types.OCI_EMPTY,
                "size": 2,
                "digest": f"sha256:{'0' * 63}{n}",
            },
            "layers": [],
            "subject": subject,
            "annotations": notes,
        }
        raw = json.dumps(document).encode()
        shop.server.store.repository("shop/web").put_manifest(raw, media_types.OCI_MANIFEST)
    _, (web,) = as_json(shop, f"{shop.server.host}/shop/web@{digest}")
    assert (web["signatures"], web["attestations"], web["sboms"]) == (2, 1, 1)


def test_one_failure_hides_no_other_and_the_order_stays(shop: Shop) -> None:
    shop.publish("web")
    shop.publish("api")
    names = [
        shop.reference("web"),
        f"{shop.server.host}/shop/web:gone",
        "No Reference",
        shop.reference("api"),
        "127.0.0.1:1/nobody/listens",
    ]
    status, found = as_json(shop, *names)
    assert status == 3
    assert [f["reference"] for f in found] == names
    assert [f["status"] for f in found] == ["found", "missing", "invalid", "found", "unknown"]
    assert "cannot connect" in found[4]["error"]["message"]


def test_answers_are_printed_in_order_however_they_come(shop: Shop) -> None:
    for name in ("first", "slow", "quick"):
        shop.publish(name)
    gate = Gate()
    shop.server.faults.add(Fault(hang=gate), path="shop/slow/manifests/1.0")
    command = [sys.executable, "-m", "conforma", "lookup", "--brief", "--no-cache"]
    # The first request to a registry goes alone.
    names = [shop.reference(name) for name in ("first", "slow", "quick")]
    with subprocess.Popen([*command, *names], stdout=subprocess.PIPE, text=True) as process:
        gate.wait_reached()
        shop.server.log.wait_for(1, "HEAD", "shop/quick")
        gate.release()
        out, _ = process.communicate(timeout=30)
    assert re.findall(r"shop/(\w+):", out) == ["first", "slow", "quick"]


@pytest.mark.parametrize(
    ("names", "status"),
    [(["web"], 0), (["web", "gone"], 1), (["gone"], 1), (["web", "denied"], 3)],
)
def test_the_status_says_the_worst(shop: Shop, names: list[str], status: int) -> None:
    shop.publish("web")
    shop.server.faults.add(Fault(status=403), path="shop/denied", times=None)
    assert look(shop, *(shop.reference(name) for name in names)).status == status


def test_what_may_not_be_seen_may_be_missing(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with RegistryServer(auth=BearerAuth("me", "secret")) as closed:
        status, (found,) = as_json(shop, f"{closed.host}/app:v1")
    assert (status, found["status"]) == (3, "missing or not permitted")
    assert found["error"]["kind"] == "AccessDenied"
    assert "log in" in found["error"]["hint"]


def test_attachments_that_cannot_be_learnt_are_not_none(shop: Shop) -> None:
    shop.publish("web")
    shop.server.faults.add(Fault(status=503), path="/referrers/", times=None)
    done = look(shop, shop.reference("web"))
    assert done.status == 3
    assert re.search(r"signatures +unknown", done.out)
    assert re.search(r"problem +GET .*SERVICE_UNAVAILABLE", done.out)
    shop.server.faults.clear()
    shop.server.faults.add(Fault(status=403), path=r"\.att$", times=None)
    status, (web,) = as_json(shop, shop.reference("web"))
    assert status == 3
    assert (web["signatures"], web["attestations"], web["sboms"]) == (1, None, 0)
    assert len(web["problems"]) == 1


def test_brief_costs_one_request_each(shop: Shop) -> None:
    shop.publish("web")
    repository = shop.server.store.repository("shop/web")
    found = repository.find("1.0")
    assert found is not None
    tags = [f"t{n}" for n in range(200)]
    for tag in tags:
        repository.put_manifest(found[1].raw, found[1].media_type, tag=tag)
    shop.server.log.clear()
    names = [f"{shop.server.host}/shop/web:{tag}" for tag in tags]
    status, answers = as_json(shop, "--brief", "--parallel", *names)
    assert status == 0
    assert {a["digest"] for a in answers} == {str(found[0])}
    assert "platforms" not in answers[0]
    counts = shop.server.log.settled().counts("HEAD")
    assert len(counts) == counts.total() == len(shop.server.log) == 200


def test_references_come_from_files_and_standard_input(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        shop.publish(name)
    (tmp_path / "list").write_text(f"# some\n\n  {shop.reference('b')}  \n")
    status, found = as_json(shop, shop.reference("a"), "--file", str(tmp_path / "list"))
    assert status == 0
    assert [f["reference"][-5:] for f in found] == ["a:1.0", "b:1.0"]
    for args in (("-",), ("--file", "-"), ()):
        source = io.TextIOWrapper(io.BytesIO(f"{shop.reference('c')}\n".encode()))
        monkeypatch.setattr("sys.stdin", source)
        assert [f["reference"][-5:] for f in as_json(shop, *args)[1]] == ["c:1.0"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    done = look(shop)
    assert (done.status, done.err.splitlines()[0]) == (1, "Error: nothing to look up")
    done = look(shop, "--file", str(tmp_path / "gone"))
    assert "no such file" in done.err


def test_the_table_is_for_people(shop: Shop) -> None:
    shop.publish("web")
    lines = look(shop, "--output", "table", shop.reference("web"), "Bad Name").out.splitlines()
    assert lines[0].split() == ["REFERENCE", "DIGEST", "SIZE", "PLATFORMS", "SIG", "ATT", "SBOM"]
    assert re.search(r"web:1.0 +sha256:\w{64} +\d+ B +linux/amd64 +1 +1 +0$", lines[1])
    assert lines[2].split() == ["Bad", "Name", "invalid"]


def test_below_the_table_stands_why_something_is_not_known(shop: Shop) -> None:
    shop.publish("web")
    web, gone = shop.reference("web"), f"{shop.server.host}/shop/gone:1"
    shop.server.faults.add(Fault(status=503), path="/referrers/", times=None)
    done = look(shop, "--output", "table", gone, web, "Not/A:reference!")
    heading, first, second, third, empty, *why = done.out.splitlines()
    assert heading.startswith("REFERENCE")
    assert (first.split(), third.split()) == ([gone, "missing"], ["Not/A:reference!", "invalid"])
    assert second.split()[-3:] == ["?", "?", "?"]
    assert empty == ""
    assert [line.partition(": ")[0] for line in why] == [gone, web, "Not/A:reference!"]
    assert "404" in why[0] or "UNKNOWN" in why[0]
    assert "503" in why[1] or "Service Unavailable" in why[1]
    assert done.status == 3


def test_what_is_too_long_for_a_reference_is_shown_in_part(shop: Shop) -> None:
    long = "x" * 100_000
    for output in ("text", "table"):
        done = look(shop, "--output", output, long)
        assert len(done.out) < 5_000
        assert done.status == 1
    assert as_json(shop, long)[1][0]["reference"] == long


@pytest.mark.parametrize("workers", ["0", "-3", "257"])
def test_impossible_numbers_of_workers_are_refused(shop: Shop, workers: str) -> None:
    done = look(shop, "--workers", workers, "a")
    assert (done.status, done.out) == (1, "")
    assert f"invalid --workers: {workers} (from 1 to 256)" in done.err


def test_json_is_whole_even_if_time_runs_out(shop: Shop) -> None:
    for name in ("web", "api"):
        shop.publish(name)
    gate = Gate()
    shop.server.faults.add(Fault(hang=gate), path="/shop/slow/", times=None)
    web, slow, api = shop.reference("web"), f"{shop.server.host}/shop/slow:1", shop.reference("api")
    done = look(shop, "--output", "json", "--brief", "--timeout", "5s", web, slow, api)
    gate.release()
    assert [answer["reference"] for answer in json.loads(done.out)] == [web, api]
    assert "exceeded allowed execution time" in done.err
    assert done.status == 3


def test_json_without_any_answer_is_whole(shop: Shop) -> None:
    gate = Gate()
    shop.server.faults.add(Fault(hang=gate), times=None)
    done = look(shop, "--output", "json", "--timeout", "500ms", shop.reference("web"))
    gate.release()
    assert (done.status, json.loads(done.out)) == (3, [])


def test_what_a_registry_says_does_not_reach_the_terminal_raw(shop: Shop) -> None:
    image = image_of([layer_of([Member("a", b"")])], annotations={"x": "\x1b[31mred"})
    image.put(shop.server.store, "evil", "v1")
    assert "\x1b" not in look(shop, f"{shop.server.host}/evil:v1").out


def test_an_unknown_form_is_refused(shop: Shop) -> None:
    assert "invalid --output: xml" in look(shop, "--output", "xml", "a").err


def test_a_second_look_uses_the_first(shop: Shop) -> None:
    shop.publish("web")
    first = look(shop, shop.reference("web")).out
    shop.server.log.clear()
    assert look(shop, shop.reference("web")).out == first
    asked = shop.server.log.settled()
    # Only the lists that have no digest are sent again.
    assert sum(r.bytes for r in asked if r.status == 200 and "/referrers/" not in r.path) == 0
    assert not asked.counts(path="/blobs/")


def test_named_registries_are_spoken_to_plainly(shop: Shop) -> None:
    plain = ("--insecure-registry", "r.example:5000", "--offline")
    done = look(shop, *plain, "r.example:5000/a", "r.example/a")
    assert "http://r.example:5000/" in done.out
    assert "https://r.example/" in done.out


def test_rates_and_mirrors_are_flags_of_every_command(shop: Shop) -> None:
    shop.publish("web")
    mirror = f"nowhere.example={shop.server.host}?final"
    status, (found,) = as_json(shop, "--registry-mirror", mirror, "nowhere.example/shop/web:1.0")
    assert (status, found["status"]) == (0, "found")
    assert "is no rate" in look(shop, "--registry-rate", "x=y", "a").err
    rate = f"{shop.server.host}=60000/5"
    assert look(shop, "--registry-rate", rate, shop.reference("web")).status == 0
    assert list((shop.directory / "cache/limits").glob("*.rate"))


def test_debug_lines_tell_each_request_and_the_totals(shop: Shop) -> None:
    shop.publish("web")
    done = look(shop, "--debug", "--brief", shop.reference("web"))
    (line,) = [line for line in done.err.splitlines() if "HEAD http" in line]
    for part in (": 200", "attempt=1", "received=0", "lane=", "limiter="):
        assert part in line
    assert "source=network" in done.err
    assert re.search(r"asked of registries in this run.* requests=1 ", done.err)
