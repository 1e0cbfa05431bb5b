"""Judging components by the public release policy: one evaluation against one for each query.

Baseline: the same engine and the same compiled rules, asked for one rule (or exception) of one
package at a time with the input parsed afresh for each, which is how the Go tool evaluates. CPU
is that of this process and of the engine, from ``/proc``. Then whole runs of many components on
a warm cache, against the evaluation of their documents alone.

Arguments: ``policy=DIR``, a clone of the public policy repository; ``packages=5000 rounds=5
components=200 workers=8``. ``components=0`` leaves the whole run out.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import mib, table
from benchmarks.processes import usage, watched
from conforma import gojson
from conforma.oci.digest import Digest
from conforma.oci.reference import Reference
from conforma.policy.config import SourceGroup
from conforma.policy.evaluation import SourceGroupEvaluator
from conforma.policy.questions import Questions
from conforma.policy.rego.engine import Builtin, Engine, Undefined
from conforma.serve.images import Member, image_of, layer_of
from conforma.serve.registry import RegistryServer
from conforma.serve.sboms import Package, spdx
from conforma.serve.signing import Signer
from conforma.serve.signing_key import SigningKey
from conforma.serve.statements import SPDX, Build, provenance_v02, statement
from conforma.serve.store import Store

REPOSITORY = "release/app"
NOW = datetime(2026, 1, 6, tzinfo=UTC)
FUNCTIONS = (
    "blob", "parsed_blob", "blob_files", "image_files", "descriptor", "image_manifest",
    "image_manifests", "image_index", "image_tag_refs", "image_referrers",
)  # fmt: skip

SERVER = """
import sys
from pathlib import Path
from conforma.serve.registry import RegistryServer
with RegistryServer(Path(sys.argv[1]), port=int(sys.argv[2])) as server:
    print(server.host, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Options:
    """See the module."""

    policy: str = ""
    packages: int = 5000
    rounds: int = 5
    components: int = 200
    workers: int = 8

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        """From ``name=value`` words."""
        words = dict(argument.split("=", 1) for argument in arguments)
        return cls(**{n: v if n == "policy" else int(v) for n, v in words.items()})  # type: ignore[arg-type]

    @property
    def rules(self) -> list[Path]:
        """The directories with the rules of the release policy."""
        return [Path(self.policy) / "policy" / name for name in ("lib", "release")]

    @property
    def data(self) -> list[Path]:
        """The directory with data to go with them."""
        return [Path(self.policy) / "example" / "data"]


def documents(name: str, digest: Digest, packages: int) -> list[dict[str, Any]]:
    """Provenance, and an SBOM of so many packages."""
    listed = (Package(f"package-{n}", f"1.{n % 7}.{n}") for n in range(packages))
    sbom = statement(SPDX, spdx(name, digest, listed), name, digest)
    # The bundles of tasks are not there; rules that look for them get a prompt answer.
    return [provenance_v02(Build(name, digest, task_bundles=f"{name}/tasks")), sbom]


def policy_input(image: Reference, packages: int) -> bytes:
    """What rules are given about an image with such attestations."""
    assert image.digest is not None
    found = documents(image.repository_name, image.digest, packages)
    return gojson.encode(
        {
            "attestations": [{"statement": s, "signatures": [{"keyid": "", "sig": ""}]} for s in found],
            "image": {"ref": str(image), "config": {"Labels": {"name": "app"}}, "source": {}},
            "snapshot": {"application": "", "components": [], "artifacts": {}},
            "component_name": "app",
            "policy_spec": {},
        }
    )  # fmt: skip


def absent(*_: Any) -> Any:
    """An image about which nothing else is known."""
    return Undefined


def cpu_of(work: Callable[[], object]) -> float:
    """CPU seconds of this process and the engine while ``work`` runs."""
    before = usage(os.getpid()).cpu
    work()
    return usage(os.getpid()).cpu - before


def one_against_many(options: Options) -> tuple[float, float]:
    """Print the ratio, and return wall and CPU seconds of one of our evaluations."""
    image = Reference.parse(f"reg.example/{REPOSITORY}@{Digest.of(b'image')}")
    document = policy_input(image, options.packages)
    builtins: dict[str, Builtin] = {f"ec.oci.{name}": absent for name in FUNCTIONS}
    with Engine.start() as engine:
        evaluator = SourceGroupEvaluator(
            engine, SourceGroup(), policy_dirs=options.rules, data_dirs=options.data, started=NOW
        )
        selection = evaluator.selection(image, "app", NOW)
        packages = selection.packages().names
        queries = Questions(selection.book, packages).queries
        ruleset = engine.compile(options.rules, options.data, {"config": {}})

        def ours() -> object:
            return evaluator.judge(
                document, image=image, component_name="app", moment=NOW, builtins=builtins
            )

        def theirs() -> None:
            for query in queries:
                ruleset.evaluate(document, [query], builtins=builtins)

        ours()
        theirs()
        spent: dict[str, list[float]] = {"ours": [], "theirs": []}
        walls = []
        for _ in range(options.rounds):
            started = time.perf_counter()
            # Several at a time: the kernel counts CPU in hundredths of a second.
            spent["ours"].append(cpu_of(lambda: [ours() for _ in range(5)]) / 5)
            walls.append((time.perf_counter() - started) / 5)
            spent["theirs"].append(cpu_of(theirs))
    ours_cpu, theirs_cpu = (statistics.median(spent[name]) for name in ("ours", "theirs"))
    wall = statistics.median(walls)
    table(
        f"one component, {options.packages} packages, {mib(len(document))} of input",
        [
            ("packages evaluated, queries asked", f"{len(packages)}, {len(queries)}", ""),
            ("CPU, one evaluation", f"{ours_cpu * 1000:.0f} ms", ""),
            ("CPU, one for each query", f"{theirs_cpu * 1000:.0f} ms", "baseline"),
            ("each query : one evaluation", f"{theirs_cpu / ours_cpu:.1f}", "> 10"),
            ("wall, one evaluation", f"{wall * 1000:.0f} ms", ""),
        ],
    )
    return wall, ours_cpu


def make_release(directory: Path, options: Options) -> int:
    """Write a store with signed images, a snapshot, a key and a policy; returns the port."""
    with RegistryServer(directory / "probe") as probe:
        port = probe.port
    host = f"127.0.0.1:{port}"
    store, key = Store(directory / "store"), SigningKey.generate()
    signer = Signer(store, REPOSITORY, key)
    components = []
    for number in range(options.components):
        layer = layer_of([Member("etc/app", str(number).encode())])
        digest = image_of([layer], labels={"name": "app"}).put(store, REPOSITORY, f"v{number}")
        signer.sign(digest)
        for document in documents(f"{host}/{REPOSITORY}", digest, options.packages):
            signer.attest(digest, document)
        components.append(
            {"name": f"app-{number}", "containerImage": f"{host}/{REPOSITORY}@{digest}"}
        )
    (directory / "snapshot.json").write_text(json.dumps({"components": components}))
    (directory / "key.pub").write_text(key.public_pem)
    source = {"policy": [str(p) for p in options.rules], "data": [str(p) for p in options.data]}
    (directory / "policy.json").write_text(json.dumps({"sources": [source]}))
    return port


def whole_run(options: Options, wall: float, cpu: float) -> None:
    """Print time and memory of runs against ``wall`` and ``cpu`` seconds of one evaluation."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="conforma-benchmark-") as place:
        directory = Path(place)
        port = make_release(directory, options)
        registry = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(directory / "store"), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert registry.stdin is not None
        assert registry.stdout is not None
        assert registry.stdout.readline(), "the registry did not start"
        command = [
            sys.executable, "-m", "conforma", "validate", "image", "--strict=false",
            "--images", str(directory / "snapshot.json"),
            "--policy", str(directory / "policy.json"),
            "--public-key", str(directory / "key.pub"), "--ignore-rekor",
            "--workers", str(options.workers), "--output", f"json={directory / 'report.json'}",
            "--cache-dir", str(directory / "cache"), "--timeout", "30m", "--quiet",
        ]  # fmt: skip
        walls, cpus, peaks = [], [], []
        try:
            for _ in range(2):  # the first warms the cache
                started = time.perf_counter()
                process = subprocess.Popen(command)
                with watched(process.pid) as samples:
                    process.wait()
                walls.append(time.perf_counter() - started)
                assert process.returncode == 0
                peaks.append(max(samples, key=lambda sample: sample.resident))
                cpus.append(max(sample.cpu for sample in samples))
        finally:
            registry.stdin.close()
            registry.wait(timeout=30)
        report = json.loads((directory / "report.json").read_text())
        assert len(report["components"]) == options.components
    ideal = options.components * wall / cores
    table(
        f"{options.components} components, {options.workers} workers, {cores} cores, warm",
        [
            ("wall", f"{walls[-1]:.1f} s", ""),
            ("evaluation alone, on all cores", f"{ideal:.1f} s", "baseline"),
            ("wall : evaluation alone", f"{walls[-1] / ideal:.2f}", "< 1.3"),
            ("CPU of conforma and its engine", f"{cpus[-1]:.1f} s", ""),
            ("CPU : of evaluations alone", f"{cpus[-1] / (options.components * cpu):.2f}", ""),
            ("peak memory, both together", mib(peaks[-1].resident), "< 600 MiB"),
            ("  of it conforma", mib(peaks[-1].own), ""),
            ("  of it the engine", mib(peaks[-1].resident - peaks[-1].own), ""),
        ],
    )


def main(arguments: list[str]) -> None:
    """Print both tables."""
    options = Options.parse(arguments)
    if not options.policy:
        raise SystemExit("policy=DIR must name a clone of the public policy repository")
    wall, cpu = one_against_many(options)
    if options.components:
        whole_run(options, wall, cpu)
