"""T18 and T19, small documents that were here before: metadata from the cache, data of a policy.

T18: a manifest of 2 kB by its digest, against opening and reading a file of the same content. T19:
a megabyte of YAML data compiled by a second process of the engine, against the first; beside it the same
data as JSON, which is what keeping the parsed form could bring. Arguments: ``documents=2000 rounds=5``.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.layers import taken
from benchmarks.measure import medians, table
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.oci.digest import Digest
from conforma.policy.rego.engine import Engine

RULES = "package main\n\nimport rego.v1\n\ndeny contains 1 if data.bundles.b0.none\n"
BUNDLES = 6000


def hits(place: Path, count: int, rounds: int) -> list[tuple[str, str, str]]:
    """T18."""
    documents = {(d := os.urandom(1000).hex().encode()): Digest.of(d) for _ in range(count)}
    with SafeCache.open(CacheOptions(place / "cache")) as cache:
        content = cache.content()
        assert content is not None
        for document, digest in documents.items():
            content.put(digest, document)
        paths = [next((place / "cache").rglob(digest.hex)) for digest in documents.values()]

        def by_digest() -> None:
            for digest in documents.values():
                assert content.get(digest)

        def by_name() -> None:
            for path in paths:
                with path.open("rb", buffering=0) as file:
                    assert file.read()

        used = medians(
            {"ours": lambda: taken(by_digest)[1], "plain": lambda: taken(by_name)[1]}, rounds
        )
    return [
        (
            "T18 metadata from the cache : open and read of the file, CPU",
            f"{used['ours'] / used['plain']:.2f}",
            f"<= 3; {used['ours'] / count * 1e6:.0f} and {used['plain'] / count * 1e6:.0f} us",
        )
    ]


def data(place: Path, rounds: int) -> list[tuple[str, str, str]]:
    """T19."""
    rules = place / "rules"
    rules.mkdir()
    (rules / "main.rego").write_text(RULES)
    entries = {
        f"b{n}": [{"digest": f"sha256:{n:064x}", "effective_on": "2026-01-01T00:00:00Z"}]
        for n in range(BUNDLES)
    }
    as_json, as_yaml = place / "json", place / "yaml"
    for directory in (as_json, as_yaml):
        directory.mkdir()
    (as_json / "data.json").write_text(json.dumps({"bundles": entries}))
    lines = [
        f'  {name}:\n    - digest: {e["digest"]}\n      effective_on: "{e["effective_on"]}"\n'
        for name, (e,) in entries.items()
    ]
    (as_yaml / "data.yml").write_text("bundles:\n" + "".join(lines))
    nothing = place / "none"
    nothing.mkdir()

    def compiling(directory: Path) -> Callable[[], float]:
        def compile_it() -> None:
            with Engine.start() as engine:
                engine.compile([rules], [directory])

        return lambda: taken(compile_it)[0]

    first, second, plain, empty = [], [], [], []
    for _ in range(rounds):
        empty.append(compiling(nothing)())
        first.append(compiling(as_yaml)())
        second.append(compiling(as_yaml)())
        plain.append(compiling(as_json)())
    base, one, two, parsed = map(statistics.median, (empty, first, second, plain))
    size = (as_yaml / "data.yml").stat().st_size
    return [
        (
            f"T19 data of {size / 2**20:.1f} MiB, YAML: second run : first",
            f"{(two - base) / (one - base):.2f}",
            f"<= 0.05; {(one - base) * 1000:.0f} ms, of which nothing is kept",
        ),
        (
            "T19 the same as JSON : YAML",
            f"{(parsed - base) / (one - base):.2f}",
            f"what keeping it parsed could bring; the engine's start takes {base * 1000:.0f} ms",
        ),
    ]


def main(arguments: list[str]) -> None:
    """Print the table."""
    given = {k: int(v) for k, _, v in (a.partition("=") for a in arguments)}
    rounds = given.get("rounds", 5)
    with tempfile.TemporaryDirectory(prefix="conforma-documents-") as name:
        place = Path(name)
        rows = hits(place, given.get("documents", 2000), rounds) + data(place, rounds)
    table(f"documents that were here before, medians of {rounds}", rows)
