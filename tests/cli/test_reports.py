"""Several reports of one run, each with what it is for."""

from __future__ import annotations

import json
import re

import pytest

from conforma.serve.faults import Fault
from tests.cli.shop import Shop

pytestmark = pytest.mark.slow


def test_details_are_in_the_reports_that_exist_for_them_and_not_in_the_others(shop: Shop) -> None:
    shop.publish("web", labels={"debug": "true"})
    places = {name: shop.directory / f"report.{name}" for name in ("html", "sarif", "github")}
    done = shop.validate(*(f"--output={name}={place}" for name, place in places.items()))
    (violation,) = done.report["components"][0]["violations"]
    assert violation == {"msg": "Built for debugging", "metadata": {"code": "main.no_debug"}}
    page = places["html"].read_text()
    assert "Images must not be built for debugging." in page and "Build it again." in page
    (run,) = json.loads(places["sarif"].read_text())["runs"]
    assert run["tool"]["driver"]["rules"][0]["help"]["text"] == (
        "Images must not be built for debugging.\n\nSolution: Build it again."
    )
    assert "::error title=No debug labels (main.no_debug)::Built for debugging%0A" in (
        places["github"].read_text()
    )


@pytest.mark.parametrize("name", ["text", "junit", "yaml"])
def test_asking_for_details_elsewhere_changes_nothing_here(shop: Shop, name: str) -> None:
    shop.publish("web", labels={"debug": "true"})
    alone = shop.validate(output=name).lasting
    together = shop.validate(f"--output=html={shop.directory / 'page.html'}", output=name).lasting

    def timeless(text: str) -> str:
        return re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "", text)

    assert "Built for debugging" in alone
    assert timeless(together) == timeless(alone)


def test_a_partial_report_names_the_undecided_in_every_format(shop: Shop) -> None:
    shop.publish("web")
    shop.publish("api")
    shop.server.faults.add(Fault(status=503), path=r"/v2/shop/api/manifests/1\.0", times=None)
    formats = (
        "json", "yaml", "text", "junit", "html", "sarif", "github", "summary", "summary-markdown",
    )  # fmt: skip
    places = {name: shop.directory / f"partial.{name}" for name in formats}
    done = shop.validate(*(f"--output={name}={place}" for name, place in places.items()), output="")
    assert done.status == 3
    for name in ("json", "yaml", "text", "junit", "html", "sarif", "github", "summary"):
        assert "SERVICE_UNAVAILABLE" in places[name].read_text(), name
    assert "| Undecided | 1 | :x: |" in places["summary-markdown"].read_text()
