"""Package URLs: one row for each rule of section 5.2 of the builtins' specification."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conforma.policy.rego.engine import Engine, Ruleset

POLICY = """
package main
parsed := ec.purl.parse(input)
valid if ec.purl.is_valid(input)
answer := ec.purl.is_valid(input)
"""


@pytest.fixture(scope="module")
def purls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ruleset]:
    directory: Path = tmp_path_factory.mktemp("policy")
    (directory / "main.rego").write_text(POLICY)
    with Engine.start() as engine:
        yield engine.compile([directory])


def parse(purls: Ruleset, purl: object) -> tuple[Any, bool]:
    parsed, valid = purls.evaluate(
        json.dumps(purl).encode(), ["data.main.parsed", "data.main.valid"]
    )
    return (parsed[0] if parsed else None), valid == [True]


def parts(**given: str) -> dict[str, str]:
    return {"namespace": "", "version": "", "subpath": "", **given}


GOOD = {
    "pkg:maven/org.apache/batik@1.9": parts(
        type="maven", namespace="org.apache", name="batik", version="1.9"
    ),
    "PKG:gem/rails": parts(type="gem", name="rails"),
    "pkg:/gem/rails": parts(type="gem", name="rails"),
    "pkg://gem/rails": parts(type="gem", name="rails"),
    "pkg:GeM/rails": parts(type="gem", name="rails"),
    "pkg:github/Org/Repo@V1": parts(type="github", namespace="org", name="repo", version="V1"),
    "pkg:npm/%40Scope/Name@1": parts(type="npm", namespace="@scope", name="name", version="1"),
    "pkg:rpm/Fedora/Curl": parts(type="rpm", namespace="fedora", name="Curl"),
    "pkg:golang/Google.com/a/B@v1": parts(
        type="golang", namespace="google.com/a", name="b", version="v1"
    ),
    "pkg:pypi/My_Package@1": parts(type="pypi", name="my-package", version="1"),
    "pkg:huggingface/org/Name@ABC": parts(
        type="huggingface", namespace="org", name="Name", version="abc"
    ),
    "pkg:generic/a%20b@1%2B2": parts(type="generic", name="a b", version="1+2"),
    "pkg:generic/n#/a/b/": parts(type="generic", name="n", subpath="a/b"),
    "pkg:docker/customer/image@sha256%3A244fd": parts(
        type="docker", namespace="customer", name="image", version="sha256:244fd"
    ),
}


@pytest.mark.parametrize("purl", GOOD)
def test_a_purl_is_taken_apart(purls: Ruleset, purl: str) -> None:
    assert parse(purls, purl) == ({**GOOD[purl], "qualifiers": []}, True)


def qualifiers(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in pairs]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "arch=x86_64&upstream=coreutils-8.32-34.el9.src.rpm&distro=rhel-9.3",
            [
                ("arch", "x86_64"),
                ("distro", "rhel-9.3"),
                ("upstream", "coreutils-8.32-34.el9.src.rpm"),
            ],
        ),
        ("B=1&a=2", [("a", "2"), ("b", "1")]),
        ("a=one+two%2Bthree", [("a", "one two+three")]),
        ("a=&b=1", [("b", "1")]),
        ("a=x=y", [("a", "x=y")]),
    ],
)
def test_qualifiers_are_decoded_and_sorted(
    purls: Ruleset, text: str, expected: list[tuple[str, str]]
) -> None:
    parsed, valid = parse(purls, f"pkg:rpm/rhel/coreutils-single@8.32-34.el9?{text}")
    assert valid
    assert parsed["qualifiers"] == qualifiers(*expected)
    assert (parsed["name"], parsed["version"]) == ("coreutils-single", "8.32-34.el9")


@pytest.mark.parametrize(
    "purl",
    [
        "",
        "this-is-not-a-valid-purl",
        "pkgs:gem/rails",
        "pkg:gem",
        "pkg:gem/",
        "pkg:9gem/rails",
        "pkg:g_m/rails",
        "pkg:generic/a%zz",
        "pkg:generic/a@%zz",
        "pkg:generic/n?a=1;b=2",
        "pkg:generic/n?a=1&A=2",
        "pkg:generic/n?9=1",
        "pkg:generic/n?a=%zz",
        "pkg:generic/n#a/../b",
        "pkg:swift/name@1",
        "pkg:swift/ns/name",
        "pkg:cran/name",
        "pkg:conan/ns/name@1",
        "pkg:conan/name@1?channel=stable",
        1,
        None,
        ["pkg:gem/rails"],
    ],
)
def test_what_is_no_purl_is_undefined_and_invalid(purls: Ruleset, purl: object) -> None:
    assert parse(purls, purl) == (None, False)


def test_validity_is_a_boolean_even_when_it_fails(purls: Ruleset) -> None:
    assert purls.evaluate(b'"no"', ["data.main.answer"]) == [[False]]
    assert purls.evaluate(b"1", ["data.main.answer"]) == [[False]]


def test_a_bad_purl_is_logged_as_the_contract_says(
    purls: Ruleset, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("ERROR", "conforma.rego"):
        parse(purls, "this-is-not-a-valid-purl")
    [record] = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "failed to parse PURL")
    assert record.__dict__["fields"] == {
        "error": 'purl scheme is not "pkg": ""',
        "function": "ec.purl.parse",
        "purl": "this-is-not-a-valid-purl",
    }
