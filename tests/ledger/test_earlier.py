"""When an earlier verdict may stand, and every reason why it may not."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from msgspec.structs import replace

from conforma.cancellation import Cancellation
from conforma.errors import InputError, Interrupted, LedgerError
from conforma.ledger.earlier import Earlier, Wanted
from conforma.ledger.rekor_shelf import RekorShelf, proposed
from conforma.ledger.shelves import Backend, LocalShelf
from conforma.ledger.statement import Summary, envelope, statement
from conforma.oci.digest import Digest
from conforma.oci.reference import Reference
from conforma.serve.signing_key import SigningKey
from conforma.trust.keys import PublicKey
from conforma.trust.private_key import PrivateKey

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
DIGEST = Digest.of(b"image")
IMAGE = Reference.parse(f"registry.test/shop/web@{DIGEST}")
KEY = PrivateKey.parse(SigningKey.generate().private_pem.encode(), "k")
OTHER = PrivateKey.parse(SigningKey.generate().private_pem.encode(), "k")
PINNED = "git::git.test/policy.git?ref=" + "a" * 40


def policy(**volatile: Any) -> dict[str, Any]:
    group: dict[str, Any] = {"policy": [PINNED], "ruleData": {"ratio": 1.0}}
    if volatile:
        group["volatileConfig"] = {"exclude": [{"value": "x", **volatile}]}
    return {"sources": [group]}


@dataclass
class Box:
    """A shelf in memory."""

    contents: list[bytes] = field(default_factory=list)
    name: str = "box"
    error: LedgerError | None = None

    def summaries(self, digest: Digest, policy: str) -> Sequence[bytes]:
        if self.error is not None:
            raise self.error
        return self.contents


def predicate(**changes: Any) -> dict[str, Any]:
    return {
        "policy": policy(),
        "timestamp": f"{NOW - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
        "status": "passed",
        "summary": {"component": {"name": "web"}},
        "publicKey": "pem",
    } | changes


def summary(
    key: PrivateKey = KEY,
    digest: Digest = DIGEST,
    name: str = "registry.test/shop/web",
    **changes: Any,
) -> bytes:
    return envelope(statement(name, digest, predicate(**changes)), key)


def wanted(**changes: Any) -> Wanted:
    base = Wanted(policy(), "pem", {}, PublicKey(KEY.public_pem), 168 * 3600.0, NOW)
    return replace(base, **changes)


def accepted(*contents: bytes, component: str = "web", **changes: Any) -> bool:
    return Earlier(wanted(**changes), [Box(list(contents))]).find(IMAGE, component) is not None


def test_a_fresh_verdict_stands() -> None:
    found = Earlier(wanted(), [Box(), Box([summary()], "second")]).find(IMAGE, "any name")
    assert found is not None
    assert (found.where, found.moment) == ("second", NOW - timedelta(hours=1))


@pytest.mark.parametrize(
    "content",
    [
        summary(OTHER),
        summary(digest=Digest.of(b"another")),
        summary(status="failed"),
        summary(status=None),
        summary(timestamp="2026-05-01T00:00:00Z"),
        summary(timestamp="2026-06-01T12:06:00Z"),
        summary(timestamp="yesterday"),
        summary(timestamp=7),
        summary(policy={"sources": [{"policy": [PINNED.replace("a", "b")]}]}),
        summary(policy=policy() | {"identity": {"subject": "somebody"}}),
        summary(publicKey="another"),
        summary(conditions={"skipImageSigCheck": True}),
        summary(currentUntil="2026-06-01T11:59:59Z"),
        summary(currentUntil="soon"),
        statement("registry.test/shop/web", DIGEST, predicate()),
        b"",
        b"{}",
        b'{"payloadType": "text/plain", "payload": "eA==", "signatures": []}',
        summary().replace(b"application/vnd.in-toto+json", b"application/json"),
    ],
)
def test_anything_else_does_not(content: bytes) -> None:
    assert not accepted(content)


def test_what_is_still_to_come_into_effect_does_no_harm() -> None:
    assert accepted(summary(currentUntil="2026-06-01T12:00:01Z"))


@pytest.mark.parametrize(
    ("volatile", "stands"),
    [
        ({"effectiveUntil": "2026-06-01T11:30:00Z"}, False),  # ended since
        ({"effectiveOn": "2026-06-01T11:30:00Z"}, False),  # began since
        ({"effectiveUntil": "2026-06-01T12:30:00Z"}, True),
        ({"effectiveUntil": "2026-06-01T10:30:00Z"}, True),  # had ended before
        ({"effectiveUntil": "whenever"}, False),
        ({"imageDigest": "sha256:x"}, True),
        ({"componentNames": ["web"]}, True),
        ({"imageUrl": "registry.test/shop/web"}, True),
    ],
)
def test_exceptions_with_dates_are_looked_at(volatile: dict[str, Any], stands: bool) -> None:
    it = policy(**volatile)
    assert accepted(summary(policy=it), policy=it) is stands


@pytest.mark.parametrize(
    "about", [{"componentNames": ["web"]}, {"imageUrl": "x"}, {"imageRef": "x"}]
)
def test_exceptions_about_names_want_the_same_names(about: dict[str, Any]) -> None:
    it = policy(**about)
    assert accepted(summary(policy=it), policy=it)
    assert not accepted(summary(policy=it), policy=it, component="api")
    assert not accepted(summary(policy=it, name="registry.test/other"), policy=it)


def test_the_newest_word_counts_and_of_two_at_once_the_failure() -> None:
    old = {"timestamp": "2026-06-01T10:00:00Z"}
    assert accepted(summary(status="failed", **old), summary())
    assert not accepted(summary(**old), summary(status="failed"))
    assert not accepted(summary(), summary(status="failed"))
    assert accepted(summary(OTHER, status="failed"), summary())  # somebody else's word does not


def test_an_outage_is_told_and_means_validating_again(caplog: pytest.LogCaptureFixture) -> None:
    broken = Box(error=LedgerError("the disk is gone"))
    with caplog.at_level(logging.DEBUG):
        assert Earlier(wanted(), [broken]).find(IMAGE, "web") is None
        assert Earlier(wanted(), [Box([summary(OTHER)])]).find(IMAGE, "web") is None
        assert Earlier(wanted(), [Box()]).find(IMAGE, "web") is None
    prefix = f"Failed to validate existing VSA for image {IMAGE}: "
    assert [(r.levelname, r.getMessage().removeprefix(prefix)) for r in caplog.records] == [
        ("WARNING", "failed to check existing VSA: the disk is gone"),
        ("WARNING", "box: VSA signature verification failed: no signature by the given key"),
        ("DEBUG", "box: there is no summary of this image"),
    ]
    assert Earlier(wanted(), [broken, Box([summary()])]).find(IMAGE, "web") is not None


@pytest.mark.parametrize(
    ("url", "pinned"),
    [
        (PINNED, True),
        (f"oci::registry.test/p:tag@{DIGEST}", True),
        ("git::git.test/policy.git?ref=main", False),
        ("oci::registry.test/p:tag", False),
        ("file::/etc/policy", False),
        ("http::files.test/policy.tar.gz", False),
    ],
)
def test_only_content_that_cannot_change_under_its_name_is_pinned(url: str, pinned: bool) -> None:
    it = {"sources": [{"policy": [PINNED], "data": [url]}]}
    assert wanted(policy=it).unpinned == ([] if pinned else [url])


def test_a_summary_is_filed_under_what_it_says_itself() -> None:
    found = Summary.parse(summary())
    # The policy of a run and that of a statement that was read: 1.0 came back as 1.
    assert found.policy == wanted().fingerprint
    assert found.path == f"{found.policy}/sha256-{DIGEST.hex}.json"
    assert Summary.parse(summary(conditions={"a": 1})).policy != found.policy


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("local", "local", "./vsa-upload"),
        ("LOCAL@/x", "local", "/x"),
        ("local?dir=/y", "local", "/y"),
        ("rekor", "rekor", "https://rekor.sigstore.dev"),
        ("rekor@https://log.test?timeout=5s", "rekor", "https://log.test"),
        ("rekor?server=https://log.test", "rekor", "https://log.test"),
        ("ledger@/l?key=env:K", "ledger", "/l"),
    ],
)
def test_places_are_named_as_the_specification_says(text: str, kind: str, target: str) -> None:
    backend = Backend.parse(text)
    assert (backend.kind, backend.target) == (kind, target)


def test_places_nobody_knows_are_refused() -> None:
    with pytest.raises(InputError, match="unsupported backend 's3'"):
        Backend.parse("s3@bucket")
    with pytest.raises(InputError, match="the directory of the ledger is missing"):
        Backend.parse("ledger")


def test_a_directory_may_hold_other_files(tmp_path: Path) -> None:
    shelf = LocalShelf(Backend.parse(f"local@{tmp_path}"))
    (tmp_path / "report.json").write_text("{}")
    content = summary()
    shelf.upload([content])
    assert LocalShelf(Backend.parse(f"local@{tmp_path}")).summaries(DIGEST, "") == [content]


class Log(BaseHTTPRequestHandler):
    """As much of Rekor as a summary needs."""

    entries: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/v1/index/retrieve":
            self._answer(200, [f"{number:08x}" for number in range(len(self.entries))])
        elif self.path == "/api/v1/log/entries":
            self.entries.append(body)
            self._answer(201, {"0": {}})

    def do_GET(self) -> None:
        entry = self.entries[int(self.path.rpartition("/")[2], 16)]
        self._answer(200, {"u": {"body": base64.b64encode(json.dumps(entry).encode()).decode()}})

    def log_message(self, *_: Any) -> None:
        return

    def _answer(self, status: int, document: Any) -> None:
        raw = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def test_a_log_is_written_to_and_searched() -> None:
    entries: list[dict[str, Any]] = []
    handler = type("Handler", (Log,), {"entries": entries})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, ExitStack() as stack:
        Thread(target=server.serve_forever, daemon=True).start()
        backend = Backend.parse(f"rekor@http://127.0.0.1:{server.server_port}")
        shelf = RekorShelf(backend, stack, Cancellation(), KEY)
        with pytest.raises(LedgerError, match="no entries found in Rekor for image digest: sha256"):
            shelf.summaries(DIGEST, "")
        shelf.upload([summary()])
        content = entries[0]["spec"]["content"]
        assert (entries[0]["kind"], entries[0]["apiVersion"]) == ("intoto", "0.0.2")
        assert content["hash"]["algorithm"] == "sha256"
        assert Earlier(wanted(), [shelf]).find(IMAGE, "web") is not None
        entries[0] = proposed(summary(OTHER), OTHER.public_pem)
        assert Earlier(wanted(), [shelf]).find(IMAGE, "web") is None
        entries[0]["kind"] = "hashedrekord"
        with pytest.raises(LedgerError, match=r"no in-toto 0\.0\.2 entry found"):
            shelf.summaries(DIGEST, "")
        server.shutdown()


def test_a_log_that_takes_nothing_is_told_apart_from_one_that_gives_nothing() -> None:
    handler = type("Handler", (Log,), {"do_POST": lambda self: self._answer(403, {})})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, ExitStack() as stack:
        Thread(target=server.serve_forever, daemon=True).start()
        backend = Backend.parse(f"rekor@http://me:c4nary@127.0.0.1:{server.server_port}")
        shelf = RekorShelf(backend, stack, Cancellation(), KEY)
        with pytest.raises(LedgerError, match="failed to upload VSA envelope: http://127") as told:
            shelf.upload([summary()])
        assert "403" in told.value.message and "c4nary" not in told.value.message
        with pytest.raises(LedgerError, match="failed to retrieve VSA envelope: http://127"):
            shelf.summaries(DIGEST, "")
        server.shutdown()


def test_a_log_is_asked_again_as_often_as_its_parameters_say() -> None:
    asked: list[str] = []

    def busy(handler: Any) -> None:
        asked.append(handler.path)
        handler._answer(503, {})

    handler = type("Handler", (Log,), {"do_POST": busy})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, ExitStack() as stack:
        Thread(target=server.serve_forever, daemon=True).start()
        place = f"rekor@http://127.0.0.1:{server.server_port}?retries=0&timeout=5s"
        shelf = RekorShelf(Backend.parse(place), stack, Cancellation(), KEY)
        with pytest.raises(LedgerError, match="failed to retrieve VSA envelope"):
            shelf.summaries(DIGEST, "")
        server.shutdown()
    assert asked == ["/api/v1/index/retrieve"]


@pytest.mark.parametrize(
    ("parameter", "seconds"), [("", 7.0), ("30s", 30.0), ("2m", 120.0), ("250ms", 0.25), ("5", 5.0)]
)
def test_time_limits_of_shelves_are_durations(parameter: str, seconds: float) -> None:
    assert Backend.parse(f"rekor?timeout={parameter}").seconds(7.0) == seconds


@pytest.mark.parametrize("parameter", ["timeout=soon", "timeout=-1s", "retries=many", "retries=-1"])
def test_parameters_that_mean_nothing_are_refused(parameter: str) -> None:
    with pytest.raises(InputError, match=r"^invalid storage config 'rekor\?.*(duration|number)"):
        Backend.parse(f"rekor?{parameter}")


def test_an_interrupted_search_is_no_doubt_about_a_summary() -> None:
    class Stopped(Box):
        def summaries(self, digest: Digest, policy: str) -> Sequence[bytes]:
            raise Interrupted("interrupted")

    with pytest.raises(Interrupted):
        Earlier(wanted(), [Stopped([])]).find(IMAGE, "web")
