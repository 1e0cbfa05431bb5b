"""``--output provenance``: what verdicts rest on, and what the text report says the cache saved."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cli.shop import RULES, Shop

READING = (
    RULES
    + """
# METADATA
# title: No keys
# custom:
#   short_name: no_keys
deny contains result if {
    some path, _ in ec.oci.image_files(input.image.ref, ["etc"])
    endswith(path, ".pem")
    result := {"code": "main.no_keys", "msg": path}
}
"""
)


@pytest.fixture
def reading(shop: Shop) -> Shop:
    for name in ("web", "api"):
        shop.publish(name)
    return shop


def provenance(shop: Shop, *args: str) -> dict[str, Any]:
    done = shop.validate(*args, output="provenance", policy=shop.policy(shop.rules(READING)))
    assert done.status == 0, done.err
    return done.report


def moment() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def layers(shop: Shop, name: str) -> list[str]:
    return [layer["digest"] for layer in json.loads(shop.images[name].manifest)["layers"]]


def test_every_blob_says_where_it_came_from_and_the_totals_agree_with_the_log(
    reading: Shop,
) -> None:
    started = moment()
    cold = provenance(reading)
    log = reading.server.log.settled()
    totals = cold["totals"]
    assert totals["registry"]["requests"] == len(log)
    assert totals["registry"]["receivedBytes"] == sum(r.bytes for r in log if r.method == "GET")
    content = {entry["digest"]: entry for entry in cold["content"]}
    downloaded = log.blob_downloads()
    assert downloaded.keys() <= content.keys()
    for digest in downloaded:
        entry = content[digest]
        assert (entry["source"], entry["place"]) == ("registry", reading.server.host)
        assert entry["size"] > 0 and entry["verified"].endswith("Z")
    stored = [entry for entry in cold["content"] if "mediaType" in entry]
    assert totals["cache"]["transfers"] == len(stored)
    for component in cold["components"]:
        assert set(layers(reading, component["name"])) < set(component["content"])
    reading.server.log.clear()
    warm = provenance(reading)
    assert reading.server.log.settled().blob_downloads() == {}
    again = {entry["digest"]: entry for entry in warm["content"]}
    for digest in downloaded:
        assert again[digest]["source"] == "cache"
        assert "place" not in again[digest]
        assert started <= again[digest]["verified"] <= moment()
    assert warm["totals"]["cache"]["savedBytes"] > 0
    assert warm["totals"]["cache"]["networkBytes"] == 0


def test_without_a_cache_everything_came_from_the_registry(reading: Shop) -> None:
    for _ in range(2):
        found = provenance(reading, "--no-cache")
        assert {entry["source"] for entry in found["content"]} == {"registry"}
        assert found["totals"]["cache"]["mode"] == "off"


def test_the_last_line_of_the_text_report_says_what_the_cache_saved(reading: Shop) -> None:
    policy = reading.policy(reading.rules(READING))

    def text(*args: str) -> list[str]:
        done = reading.validate(*args, output="text", policy=policy)
        assert done.status == 0, done.err
        return done.out.splitlines()

    text()
    plain, warm = text("--no-cache"), text()
    assert not any(line.startswith("Cache:") for line in plain)
    assert warm[:-1] == plain
    assert warm[-1].startswith("Cache: ")
    assert warm[-1].endswith("MiB saved, 0.0 MiB downloaded")
    shared, _, total = warm[-1].split()[1:4]
    assert shared == total


def test_the_json_report_says_nothing_about_the_cache(reading: Shop) -> None:
    policy = reading.policy(reading.rules(READING))
    reports = [
        reading.validate(*args, policy=policy, effective_time="2030-01-01").out
        for args in ((), (), ("--no-cache",))
    ]
    assert reports[0] == reports[1] == reports[2] != ""
