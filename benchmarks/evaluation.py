"""Judging components by the public release policy: one evaluation against one for each query.

Baseline: the same engine and the same compiled rules, asked for one rule (or exception) of one
package at a time with the input parsed afresh for each, which is how the Go tool evaluates. CPU
is that of this process and of the engine, from ``/proc``.

Then whole runs of many components on a warm cache, from the start of the process to its end.
Baseline: pure evaluation, which is an engine that has compiled the rules already, is handed as
many documents of the same size by one thread a core, and answers every function of a rule at
once. Nothing is fetched, verified, hashed, started or written there, so its wall time is the
sum of the evaluations divided by the cores, and no run can be faster. It is measured before and
after the run, and the faster of the two is what the run is held against.

Arguments: ``policy=DIR``, a clone of the public policy repository; ``packages=5000 rounds=5
components=200 workers=8``. ``rounds=0`` leaves the first part out, ``components=0`` the second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import Served, medians, mib, table
from benchmarks.processes import Usage, usage, watched
from conforma import gojson
from conforma.oci.digest import Digest
from conforma.oci.reference import Reference
from conforma.policy.evaluation import SourceGroupEvaluator
from conforma.policy.questions import Questions
from conforma.policy.rego.engine import Builtin, Engine, Undefined
from conforma.policy.source_group import SourceGroup
from conforma.serve.images import Member, image_of, layer_of
from conforma.serve.registry import RegistryServer
from conforma.serve.sboms import Package, spdx
from conforma.serve.signing import Signer
from conforma.serve.signing_key import SigningKey
from conforma.serve.statements import SPDX, Build, provenance_v02, statement
from conforma.serve.store import Store

REPOSITORY = "release/app"
CORES = len(os.sched_getaffinity(0))
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


@contextmanager
def judging(options: Options) -> Iterator[tuple[SourceGroupEvaluator, Callable[[], object]]]:
    """An engine with the compiled rules, and a function that judges one component once."""
    image = Reference.parse(f"reg.example/{REPOSITORY}@{Digest.of(b'image')}")
    document = policy_input(image, options.packages)
    builtins: dict[str, Builtin] = {f"ec.oci.{name}": absent for name in FUNCTIONS}
    with Engine.start() as engine:
        evaluator = SourceGroupEvaluator(
            engine, SourceGroup(), policy_dirs=options.rules, data_dirs=options.data, started=NOW
        )

        def judge() -> object:
            return evaluator.judge(
                document, image=image, component_name="app", moment=NOW, builtins=builtins
            )

        judge()
        yield evaluator, judge


def one_against_many(options: Options) -> None:
    """Print how much less one evaluation costs than one for each query."""
    image = Reference.parse(f"reg.example/{REPOSITORY}@{Digest.of(b'image')}")
    document = policy_input(image, options.packages)
    builtins: dict[str, Builtin] = {f"ec.oci.{name}": absent for name in FUNCTIONS}
    with judging(options) as (evaluator, judge), Engine.start() as engine:
        selection = evaluator.selection(image, "app", NOW)
        packages = selection.packages()
        queries = Questions(selection.book, packages.names).queries
        ruleset = engine.compile(options.rules, options.data, {"config": {}})

        def each_query() -> None:
            for query in queries:
                ruleset.evaluate(document, [query], builtins=builtins)

        each_query()
        # Several at a time: the kernel counts CPU in hundredths of a second.
        spent = medians(
            {
                "one": lambda: cpu_of(lambda: [judge() for _ in range(5)]) / 5,
                "each": lambda: cpu_of(each_query),
            },
            options.rounds,
        )
    table(
        f"one component, {options.packages} packages, {mib(len(document))} of input",
        [
            ("packages evaluated, queries asked", f"{len(packages.names)}, {len(queries)}", ""),
            ("CPU, one evaluation", f"{spent['one'] * 1000:.0f} ms", ""),
            ("CPU, one for each query", f"{spent['each'] * 1000:.0f} ms", "baseline"),
            ("each query : one evaluation", f"{spent['each'] / spent['one']:.1f}", "> 10"),
        ],
    )


def pure_evaluation(options: Options) -> tuple[float, float]:
    """Wall and CPU seconds of as many evaluations as there are components, and nothing else."""
    with judging(options) as (_, judge), ThreadPoolExecutor(CORES) as threads:
        before, started = usage(os.getpid()).cpu, time.perf_counter()
        for done in [threads.submit(judge) for _ in range(options.components)]:
            done.result()
        return time.perf_counter() - started, usage(os.getpid()).cpu - before


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


def whole_run(options: Options) -> None:
    """Print time and memory of a run on a warm cache against pure evaluation."""
    with tempfile.TemporaryDirectory(prefix="conforma-benchmark-") as place:
        directory = Path(place)
        port = make_release(directory, options)
        command = [
            sys.executable, "-m", "conforma", "validate", "image", "--strict=false",
            "--images", str(directory / "snapshot.json"),
            "--policy", str(directory / "policy.json"),
            "--public-key", str(directory / "key.pub"), "--ignore-rekor",
            "--workers", str(options.workers), "--output", f"json={directory / 'report.json'}",
            "--cache-dir", str(directory / "cache"), "--timeout", "30m", "--quiet",
        ]  # fmt: skip
        registry = Served(SERVER, str(directory / "store"), str(port))
        try:
            _run(command)  # warms the cache
            before = pure_evaluation(options)
            wall, samples = _run(command)
            after = pure_evaluation(options)
        finally:
            registry.close()
        report = json.loads((directory / "report.json").read_text())
        assert len(report["components"]) == options.components
    peak = max(samples, key=lambda sample: sample.resident)
    cpu = max(sample.cpu for sample in samples)
    pure, pure_cpu = min(before, after)
    table(
        f"{options.components} components of {options.packages} packages, "
        f"{options.workers} workers, {CORES} cores, warm",
        [
            ("wall of the run, start and end included", f"{wall:.1f} s", ""),
            (
                "pure evaluation, before and after",
                f"{before[0]:.1f} s, {after[0]:.1f} s",
                "baseline",
            ),
            ("wall : pure evaluation", f"{wall / pure:.2f}", "< 1.3"),
            ("CPU of conforma and its engine", f"{cpu:.1f} s", ""),
            ("CPU : of pure evaluation", f"{cpu / pure_cpu:.2f}", ""),
            ("peak memory, both together", mib(peak.resident), "< 600 MiB"),
            ("  of it conforma", mib(peak.own), ""),
            ("  of it the engine", mib(peak.resident - peak.own), ""),
        ],
    )


def _run(command: list[str]) -> tuple[float, list[Usage]]:
    started = time.perf_counter()
    process = subprocess.Popen(command)
    with watched(process.pid) as samples:
        process.wait()
    assert process.returncode == 0
    return time.perf_counter() - started, samples


def main(arguments: list[str]) -> None:
    """Print both tables."""
    options = Options.parse(arguments)
    if not options.policy:
        raise SystemExit("policy=DIR must name a clone of the public policy repository")
    if options.rounds:
        one_against_many(options)
    if options.components:
        whole_run(options)
