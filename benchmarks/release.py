"""Validating one release: components that share layers, a policy that reads files in every layer.

Baselines, all in this run and against the same loopback registry process: fetching, hashing and
inflating the distinct layers once with one thread per layer (httpx, hashlib, isal, nothing else),
and the same validation with the cache off. Arguments: ``components=50 layers=6 size=50
workers=8 rounds=3 baseline=5 growth=4`` (``size`` in MiB per compressed layer; ``baseline`` is how
many components the run without a cache validates, its time scaled up to all; ``growth`` is how many
times the components two more runs validate, of which only the memory is looked at, 0 for none).
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Run, Served, child, mib, numbers, table
from conforma.serve.images import Layer, Member, image_of, layer_of
from conforma.serve.registry import RegistryServer
from conforma.serve.signing import Signer
from conforma.serve.signing_key import SigningKey
from conforma.serve.statements import Build, provenance_v02
from conforma.serve.store import Store

REPOSITORY = "release/app"

POLICY = """package layers

import rego.v1

# METADATA
# title: Every layer has its settings
# custom:
#   short_name: settings
deny contains result if {
	files := ec.oci.image_files(input.image.ref, ["etc"])
	some number in numbers.range(0, %(last)d)
	object.get(files, sprintf("etc/layer-%%d.json", [number]), {}).layer != number
	result := {"code": "layers.settings", "msg": sprintf("layer %%d is not as expected", [number])}
}

# METADATA
# title: No setuid files
# custom:
#   short_name: setuid
deny contains result if {
	some entry in conforma.oci.image_tree(input.image.ref, {"mode": "6000"})
	result := {"code": "layers.setuid", "msg": sprintf("%%s is setuid", [entry.path])}
}
"""

# Serves a prepared store and prints what was asked for since the last line read.
SERVER = """
import json, sys
from pathlib import Path
from conforma.serve.registry import RegistryServer
with RegistryServer(Path(sys.argv[1]), port=int(sys.argv[2])) as server:
    print(server.host, flush=True)
    for _ in sys.stdin:
        log = server.log.settled()
        downloads = log.matching("GET", r"/blobs/")
        seen = {"requests": len(log), "blobs": {}, "bytes": sum(r.bytes for r in downloads)}
        for path, count in log.counts("GET", r"/blobs/").items():
            seen["blobs"][path.rpartition("/")[2]] = count
        log.clear()
        print(json.dumps(seen), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The size of the release; see the module."""

    components: int = 50
    layers: int = 6
    size: int = 50
    workers: int = 8
    rounds: int = 3
    baseline: int = 5
    growth: int = 4

    @property
    def most(self) -> int:
        """The components of the largest run."""
        return self.components * max(1, self.growth)

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        """From ``name=number`` words."""
        return cls(**numbers(arguments))


@dataclass(frozen=True, slots=True)
class Release:
    """A release on disk, ready to be served and validated.

    ``layers`` holds digest, DiffID and packed size of each distinct layer.
    """

    directory: Path
    layers: tuple[tuple[str, str, int], ...]
    port: int

    def command(self, components: int, workers: int) -> list[str]:
        """Validate the first ``components`` of it."""
        return [
            sys.executable, "-m", "conforma", "validate", "image",
            "--images", str(self.directory / f"snapshot-{components}.json"),
            "--policy", str(self.directory / "policy.json"),
            "--public-key", str(self.directory / "key.pub"),
            "--ignore-rekor", "--workers", str(workers), "--output", "json", "--timeout", "30m",
        ]  # fmt: skip


def make_layer(number: int, size: int) -> Layer:
    """About ``size`` MiB packed: half of it programs (incompressible), half of it texts."""
    source = random.Random(number)
    members = [Member(f"etc/layer-{number}.json", json.dumps({"layer": number}).encode())]
    words = [source.randbytes(6).hex() for _ in range(4000)]
    for position in range(size):
        members.append(
            Member(f"usr/lib/{number}/program-{position}", source.randbytes(700_000), 0o755)
        )
        for part in range(24):
            text = " ".join(source.choices(words, k=2600)).encode()
            members.append(Member(f"usr/share/doc/{number}/{position}/{part}.txt", text))
    return layer_of(members, level=6)


def make_release(directory: Path, options: Options) -> Release:
    """A release made in a process of its own.

    What ``wait4`` calls the peak of a child begins with the memory of the
    process that forked it, so this one has to stay small.
    """
    maker = multiprocessing.get_context("spawn").Process(
        target=write_release, args=(directory, options)
    )
    maker.start()
    maker.join()
    assert maker.exitcode == 0
    facts = json.loads((directory / "release.json").read_text())
    return Release(directory, tuple(map(tuple, facts["layers"])), facts["port"])


def write_release(directory: Path, options: Options) -> None:
    """Write store, key, policy and snapshots, and what they consist of."""
    with ThreadPoolExecutor(2) as pool:
        layers = tuple(pool.map(lambda n: make_layer(n, options.size), range(options.layers)))
    with RegistryServer(directory / "probe") as probe:
        port = probe.port
    host = f"127.0.0.1:{port}"
    store = Store(directory / "store")
    key = SigningKey.generate()
    signer = Signer(store, REPOSITORY, key)
    components = []
    with store.together():
        for number in range(options.most):
            image = image_of(layers, labels={"component": str(number)})
            digest = image.put(store, REPOSITORY, f"v{number}")
            signer.sign(digest)
            signer.attest(digest, provenance_v02(Build(f"{host}/{REPOSITORY}", digest)))
            components.append(
                {"name": f"component-{number}", "containerImage": f"{host}/{REPOSITORY}@{digest}"}
            )
    for count in {options.components, options.baseline, options.most}:
        document = {"application": "benchmark", "components": components[:count]}
        (directory / f"snapshot-{count}.json").write_text(json.dumps(document))
    (directory / "key.pub").write_text(key.public_pem)
    rules = directory / "rules"
    rules.mkdir()
    (rules / "layers.rego").write_text(POLICY % {"last": options.layers - 1})
    (directory / "policy.json").write_text(json.dumps({"sources": [{"policy": [str(rules)]}]}))
    facts = [(str(la.descriptor.digest), la.diff_id.hex, len(la.blob)) for la in layers]
    (directory / "release.json").write_text(json.dumps({"layers": facts, "port": port}))


def floor(host: str, layers: tuple[tuple[str, str, int], ...]) -> float:
    """Seconds to fetch, hash and inflate every distinct layer once, a thread for each."""
    import httpx
    from isal import isal_zlib

    def one(layer: tuple[str, str, int]) -> None:
        digest, diff_id, _ = layer
        packed, plain = hashlib.sha256(), hashlib.sha256()
        inflater = isal_zlib.decompressobj(31)
        with client.stream("GET", f"/v2/{REPOSITORY}/blobs/{digest}") as answer:
            for piece in answer.iter_raw():
                packed.update(piece)
                plain.update(inflater.decompress(piece))
        assert packed.hexdigest() == digest.removeprefix("sha256:")
        assert plain.hexdigest() == diff_id

    with httpx.Client(base_url=f"http://{host}") as client, ThreadPoolExecutor(len(layers)) as pool:
        started = time.perf_counter()
        list(pool.map(one, layers))
        return time.perf_counter() - started


@contextmanager
def prepared(options: Options) -> Iterator[tuple[Release, Served]]:
    """A release and the registry that serves it, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="conforma-benchmark-") as name:
        release = make_release(Path(name), options)
        served = Served(SERVER, str(release.directory / "store"), str(release.port))
        try:
            yield release, served
        finally:
            served.close()


def passed(run: Run) -> Run:
    """The run, once it is clear that it did what it should."""
    report = json.loads(run.stdout)
    assert run.status == 0, run.stdout[:2000]
    assert report["success"] is True
    return run


def grown(release: Release, options: Options) -> list[Run]:
    """A cold and a warm run over all components there are; none if they are not more."""
    if options.growth < 2:
        return []
    cache = {"EC_CACHE_DIR": str(release.directory / "cache-grown")}
    command = release.command(options.most, options.workers)
    return [passed(child(command, cache)) for _ in ("cold", "warm")]


def main(arguments: list[str]) -> None:
    """Print the table."""
    options = Options.parse(arguments)
    with prepared(options) as (release, served):
        sizes = {digest: size for digest, _, size in release.layers}
        unique = sum(sizes.values())
        colds: list[Run] = []
        warms: list[Run] = []
        floors: list[float] = []
        cold_log: dict[str, object] = {}
        warm_log: dict[str, object] = {}
        place = release.directory / "cache"
        cache = {"EC_CACHE_DIR": str(place)}
        for _ in range(options.rounds):
            # What the last round left to be written back is not this one's to pay, nor is memory
            # that a virtual machine has to ask its host for because that round holds it.
            shutil.rmtree(place, ignore_errors=True)
            os.sync()
            floors.append(floor(served.host, release.layers))
            served.asked()
            command = release.command(options.components, options.workers)
            colds.append(passed(child(command, cache)))
            cold_log = served.asked()
            warms.append(passed(child(command, cache)))
            warm_log = served.asked()
        few = passed(
            child(release.command(options.baseline, options.workers), {"EC_CACHE": "false"})
        )
        uncached = few.wall * options.components / options.baseline
        many = grown(release, options)
    fetched = cold_log["blobs"]
    refetched = warm_log["blobs"]
    assert isinstance(fetched, dict)
    assert isinstance(refetched, dict)
    layer_bytes = sum(sizes[d] * n for d, n in fetched.items() if d in sizes)
    cold = statistics.median(run.wall for run in colds)
    warm = statistics.median(run.wall for run in warms)
    base = statistics.median(floors)
    table(
        f"{options.components} components x {options.layers} layers, {mib(unique)} distinct, "
        f"{options.workers} workers, medians of {options.rounds}",
        [
            ("layer bytes fetched : unique bytes, cold", f"{layer_bytes / unique:.2f}", "= 1.00"),
            ("cold : fetch + hash + inflate once", f"{cold / base:.2f}", "<= 1.5"),
            ("without cache : cold", f"{uncached / cold:.1f}", ">= 10 (scaled)"),
            ("layer requests, warm", f"{sum(refetched.get(d, 0) for d in sizes)}", "= 0"),
            ("blob requests of any kind, warm", f"{sum(refetched.values())}", "= 0"),
            ("warm : cold", f"{warm / cold:.2f}", "<= 0.25"),
            ("peak memory, cold", mib(max(r.peak for r in colds)), "< 250 MiB"),
            ("peak memory, warm", mib(max(r.peak for r in warms)), "< 250 MiB"),
            *(
                (
                    f"peak memory, {options.growth} x the components : these, {name}",
                    f"{more.peak / max(r.peak for r in these):.2f}",
                    "<= 1.20",
                )
                for name, more, these in zip(("cold", "warm"), many, (colds, warms), strict=False)
            ),
            ("wall: cold, warm, once", f"{cold:.2f} {warm:.2f} {base:.2f} s", "orientation"),
            ("CPU: cold, warm", f"{colds[-1].cpu:.2f} {warms[-1].cpu:.2f} s", "orientation"),
        ],
    )
