"""The whole of ``validate image`` against a registry that does everything wrong now and then.

Whatever happens, each component gets the verdict of a calm day or none, and
then the status says so. ``-m soak`` runs it for longer; CHAOS_RUNS says how long.
"""

from __future__ import annotations

import base64
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conforma.oci.digest import Digest
from conforma.oci.manifest import Platform
from conforma.serve.auth import BearerAuth
from conforma.serve.faults import Fault, Rule
from conforma.serve.images import Image, Member, image_of, index_of, layer_of
from conforma.serve.registry import RegistryServer
from conforma.serve.signing import Signer
from conforma.serve.statements import Build, provenance_v02
from tests.cli.shop import Outcome, Shop

CANARY = "c4nary-chaos-s3cret"
RULES = """
package main

import rego.v1

# METADATA
# title: No forbidden files
# custom:
#   short_name: forbidden
deny contains result if {
    files := ec.oci.image_files(input.image.ref, ["etc"])
    some path, _ in files
    startswith(path, "etc/forbidden")
    result := {"code": "main.forbidden", "msg": sprintf("has %s", [path])}
}

# METADATA
# title: Manifests are readable
# custom:
#   short_name: manifest
deny contains result if {
    not ec.oci.image_manifest(input.image.ref)
    result := {"code": "main.manifest", "msg": "no manifest"}
}

# METADATA
# title: Descriptors are readable
# custom:
#   short_name: descriptor
warn contains result if {
    count(ec.oci.image_referrers(input.image.ref)) > 100
    result := {"code": "main.descriptor", "msg": "many referrers"}
}
"""


class Chaos:
    """A release, the verdicts of a calm day, and a server that can be upset."""

    def __init__(self, shop: Shop, home: Path) -> None:
        self.shop = shop
        self.directory = home
        self.injected: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self.policy = shop.policy(shop.rules(RULES, "chaos"))
        for name, files, signed in (
            ("good", ["etc/fine.json"], True),
            ("forbidden", ["etc/forbidden.json"], True),
            ("unsigned", ["etc/fine.json"], False),
        ):
            self._publish(name, files, signed=signed)
        self._publish_index("indexed", ["amd64", "arm64"], forbidden="arm64")
        self.calm = self._run("calm")
        self.verdicts = {c["name"]: c for c in self.calm.report["components"]}
        assert self.calm.report.get("undecided", 0) == 0, self.calm.err
        passed = sorted(
            (name.partition("-sha")[0], c["success"]) for name, c in self.verdicts.items()
        )
        assert passed == [
            ("forbidden", False),
            ("good", True),
            ("indexed", False),  # the child that must not be overlooked
            ("indexed", True),
            ("indexed", True),
            ("unsigned", False),
        ]

    def _publish(self, name: str, files: list[str], *, signed: bool) -> None:
        digest = _image(files).put(self.shop.server.store, f"shop/{name}", "1.0")
        self._vouch(name, digest, signed=signed)
        reference = f"{self.shop.server.host}/shop/{name}:1.0"
        self.shop.components.append({"name": name, "containerImage": reference})

    def _publish_index(self, name: str, platforms: list[str], forbidden: str) -> None:
        images = [
            _image(["etc/forbidden.json" if p == forbidden else "etc/fine.json"], p)
            for p in platforms
        ]
        digest = index_of(images).put(self.shop.server.store, f"shop/{name}", "1.0")
        for each in (digest, *(image.digest for image in images)):
            self._vouch(name, each, signed=True)
        reference = f"{self.shop.server.host}/shop/{name}:1.0"
        self.shop.components.append({"name": name, "containerImage": reference})

    def _vouch(self, name: str, digest: Digest, *, signed: bool) -> None:
        signer = Signer(self.shop.server.store, f"shop/{name}", self.shop.key)
        if signed:
            signer.sign(digest)
        build = Build(f"{self.shop.server.host}/shop/{name}", digest)
        signer.attest(digest, provenance_v02(build))

    def _run(self, cache: str, *args: str) -> Outcome:
        return self.shop.validate(
            *args,
            policy=self.policy,
            cache_dir=str(self.directory / "caches" / cache),
            retry_duration="1ms",
            retry_max_wait="2ms",
            retry_max_retry="3",
            workers="3",
        )

    def one_run(self, seed: int) -> None:
        """Upset the server, validate, and compare with the calm day."""
        chance = random.Random(seed)
        server = self.shop.server
        rules: list[tuple[str, Rule]] = []
        for _ in range(chance.choice([1, 2, 4, 8, 16])):
            kind = chance.choice(sorted(KINDS))
            fault, where = KINDS[kind](chance, server)
            rules.append((kind, server.faults.add(fault, **where)))
        server.faults.add(Fault(redirect=f"{server.url}/loop"), path="^/loop", times=None)
        # Half of the runs have a cache that was filled on better days.
        cache = "calm" if chance.random() < 0.5 else f"run-{seed}"
        done = self._run(cache, "--debug")
        server.faults.clear()
        hits = Counter({kind: rule.hits for kind, rule in rules})
        self.injected.update({kind: rule.hits for kind, rule in rules if rule.hits})
        assert CANARY not in done.out + done.err
        assert base64.b64encode(f"me:{CANARY}".encode()).decode() not in done.out + done.err
        assert "Traceback" not in done.err, done.err
        problem = f"seed {seed}, {dict(hits)}:\n{done.err[-3000:]}"
        if not done.out:
            self.runs["no report"] += 1
            assert done.status == 3, problem
            return
        undecided = 0
        for component in done.report["components"]:
            if "error" in component:
                undecided += 1
                assert not component["success"], problem
            else:
                assert component == self.verdicts[component["name"]], problem
        self.runs["undecided" if undecided else "as on a calm day"] += 1
        assert done.status == (3 if undecided else self.calm.status), problem
        assert done.report.get("undecided", 0) == undecided


def _image(files: list[str], architecture: str = "amd64") -> Image:
    members = [
        Member(path, json.dumps(random.Random(path).randbytes(30_000).hex()).encode())
        for path in files
    ]
    layers = [layer_of([Member("usr/base", b"base")]), layer_of(members)]
    return image_of(layers, platform=Platform("linux", architecture))


Where = dict[str, Any]


def _somewhere(chance: random.Random, path: str = "/(manifests|blobs|referrers)/") -> Where:
    return {"path": path, "skip": chance.randrange(12), "times": chance.choice([1, 1, 2, 5])}


def _content(chance: random.Random) -> Where:
    # Lists of referrers have no digest: nobody could notice a wrong bit there.
    return _somewhere(chance, "/(manifests|blobs)/")


def _storm(chance: random.Random, _server: RegistryServer) -> tuple[Fault, Where]:
    headers = chance.choice(
        [{}, {"Retry-After": "0"}, {"Retry-After": "later"}, {"Retry-After": "999"}]
    )
    where = {"path": "/v2/", "skip": chance.randrange(12), "times": chance.choice([1, 3, 10, 40])}
    return Fault(status=429, headers=headers), where


def _lie(chance: random.Random, _server: RegistryServer) -> tuple[Fault, Where]:
    return Fault(headers={"Docker-Content-Digest": str(Digest.of(b"lie"))}), _content(chance)


def _token(chance: random.Random, _server: RegistryServer) -> tuple[Fault, Where]:
    fault = chance.choice(
        [
            *(Fault(status=status) for status in (400, 401, 403, 404, 429, 500, 503)),
            Fault(status=200, body=b""),
            Fault(status=200, body=b"[]"),
            Fault(status=200, body=b'{"token": "wrong", "expires_in": "soon"}'),
            Fault(status=200, body=b'{"token": "two\\r\\nlines"}'),
            Fault(status=200, body=b'{"token": "' + b"x" * 300_000 + b'"}'),
            Fault(truncate_at=10),
            Fault(reset_at=0),
        ]
    )
    return fault, {
        "path": "/token",
        "skip": chance.randrange(3),
        "times": chance.choice([1, 3, 20]),
    }


KINDS: dict[str, Any] = {
    "latency": lambda c, s: (Fault(latency=c.uniform(0.001, 0.05)), _somewhere(c)),
    "drip": lambda c, s: (Fault(drip=(c.choice([50, 5000]), 0.001)), _somewhere(c)),
    "truncation": lambda c, s: (Fault(truncate_at=c.randrange(60_000)), _somewhere(c)),
    "truncation in the head of a body": lambda c, s: (
        Fault(truncate_at=c.randrange(300)),
        _somewhere(c),
    ),
    "reset": lambda c, s: (Fault(reset_at=c.choice([0, c.randrange(60_000)])), _somewhere(c)),
    "wrong length": lambda c, s: (
        Fault(content_length=c.choice([0, 7, 100_000])),
        {**_content(c), "method": "GET"},
    ),
    "surplus": lambda c, s: (Fault(extra=b"zz"), _content(c)),
    "wrong digest": lambda c, s: (Fault(flip_at=c.randrange(400)), _content(c)),
    "lie about the digest": _lie,
    "429 storm": _storm,
    "5xx burst": lambda c, s: (
        Fault(status=c.choice([500, 502, 503, 504, 408])),
        {**_somewhere(c, "/v2/"), "times": c.choice([1, 2, 3, 10])},
    ),
    "refusal": lambda c, s: (Fault(status=c.choice([401, 403])), _somewhere(c, "/v2/")),
    "redirect loop": lambda c, s: (Fault(redirect=f"{s.url}/loop"), _somewhere(c)),
    "redirect nowhere": lambda c, s: (Fault(redirect="ftp://nowhere.invalid/x"), _somewhere(c)),
    "token service": _token,
    "HTTP/1.0": lambda c, s: (Fault(http10=True), _somewhere(c, "/v2/")),
    "HTTP/1.0 cut short": lambda c, s: (
        Fault(http10=True, truncate_at=c.randrange(400)),
        _content(c),
    ),
    "chunked": lambda c, s: (Fault(chunked=True), _somewhere(c, "/v2/")),
    "chunked without end": lambda c, s: (Fault(endless=True), _somewhere(c, "/v2/")),
    "no type": lambda c, s: (Fault(headers={"Content-Type": None}), _somewhere(c)),
    "a page of a proxy": lambda c, s: (
        Fault(status=200, headers={"Content-Type": "text/html"}, body=b"<html>log in</html>"),
        _somewhere(c),
    ),
}


@pytest.fixture
def chaos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Chaos]:
    with RegistryServer(auth=BearerAuth("me", CANARY)) as server:
        auth = base64.b64encode(f"me:{CANARY}".encode()).decode()
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
        made = Chaos(Shop(server, tmp_path, capsys), tmp_path)
        yield made
        server.faults.clear()
    with capsys.disabled():
        if os.environ.get("CHAOS_RUNS"):
            print(f"\nruns: {dict(made.runs)}; faults injected: {made.injected.total()}")
            print(f"by kind: {dict(sorted(made.injected.items()))}")


@pytest.mark.slow
@pytest.mark.parametrize("block", range(3))
def test_a_bad_day_changes_no_verdict(chaos: Chaos, block: int) -> None:
    for seed in range(block * 8, block * 8 + 8):
        chaos.one_run(seed)
    assert chaos.injected


@pytest.mark.soak
def test_many_bad_days_change_no_verdict(chaos: Chaos) -> None:
    for seed in range(1000, 1000 + int(os.environ.get("CHAOS_RUNS", "200"))):
        chaos.one_run(seed)
    assert set(chaos.injected) == set(KINDS)
