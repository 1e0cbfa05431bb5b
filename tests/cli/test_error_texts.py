"""The whole text of errors that the specification gives word by word (sections 2, 3, 7 and 8).

Only those are here that no test of the module concerned holds as a whole.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.shop import Shop

pytestmark = pytest.mark.slow


def data_policy(shop: Shop, *documents: str) -> str:
    """A policy with one data directory that holds the documents as files of their own."""
    place = shop.directory / "data"
    place.mkdir()
    for number, text in enumerate(documents):
        (place / f"{number}.json").write_text(text)
    return json.dumps({"sources": [{"policy": [shop.rules()], "data": [str(place)]}]})


def message(shop: Shop, status: int = 1, **flags: str) -> str:
    """What stands behind ``Error: ``, without the hint; nothing may be on standard output."""
    done = shop.validate(**flags)
    assert (done.status, done.out) == (status, "")
    return done.err.partition("\nhint: ")[0].removesuffix("\n")


def test_data_that_overlaps_once(shop: Shop) -> None:
    shop.publish("web")
    text = message(shop, policy=data_policy(shop, '{"a": {"b": 1}}', '{"a": {"b": 2}}'))
    image = shop.reference("web")
    assert text.startswith(
        f"Error: error validating image {image} of component web: "
        "load: load documents: 1 error occurred during loading: "
    )
    assert text.endswith("/1.json: merge error")


def test_data_that_overlaps_in_several_files(shop: Shop) -> None:
    shop.publish("web")
    text = message(shop, policy=data_policy(shop, '{"a": 1}', '{"a": 2}', '{"a": [3]}', "[]"))
    head, first, second, third = text.split("\n")
    assert head.endswith("load: load documents: 3 errors occurred during loading:")
    assert first.endswith("/1.json: merge error")
    assert second.endswith("/2.json: merge error")
    assert "/3.json: " in third and "object" in third


def test_data_that_says_the_same_twice_overlaps_too(shop: Shop) -> None:
    shop.publish("web")
    assert "merge error" in message(shop, policy=data_policy(shop, '{"a": 1}', '{"a": 1}'))


def test_a_policy_directory_without_rules(shop: Shop, tmp_path: Path) -> None:
    shop.publish("web")
    (tmp_path / "empty").mkdir()
    policy = json.dumps({"sources": [{"policy": [str(tmp_path / "empty")]}]})
    assert message(shop, policy=policy).endswith(
        "of component web: no rego files found in policy subdirectory"
    )


def test_all_preparation_errors_in_their_order(shop: Shop) -> None:
    done = shop.validate(
        images='{"invalid": "json""}',
        public_key="",
        policy='{"sources": [{"policy": ["x"]}]}',
        effective_time="soon",
    )
    assert done.err.partition("\nhint")[0].removesuffix("\n").split("\n") == [
        'Error: unable to parse Snapshot specification from {"invalid": "json""}: '
        "error converting YAML to JSON: yaml: found unexpected end of stream",
        "certificate OIDC issuer must be provided for keyless workflow",
        "certificate identity must be provided for keyless workflow",
    ]


def test_rule_data_is_asked_for_in_every_source(shop: Shop) -> None:
    shop.publish("web")
    source = {"policy": [shop.rules()]}
    policy = json.dumps({"sources": [source, source]})
    assert message(shop, policy=policy, extra_rule_data="a,b").split("\n") == [
        "Error: incorrect syntax for --extra-rule-data 0",
        "incorrect syntax for --extra-rule-data 1",
        "incorrect syntax for --extra-rule-data 0",
        "incorrect syntax for --extra-rule-data 1",
    ]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nothing-known", "no gatherer found for URI: nothing-known"),
        (
            "http://policy.example/p",
            "attempting to download from insecure source: http://policy.example/p",
        ),
        (
            "git::http://policy.example/p",
            "attempting to download from insecure source: git::http://policy.example/p",
        ),
    ],
)
def test_sources_that_cannot_be_fetched(shop: Shop, url: str, text: str) -> None:
    shop.publish("web")
    policy = json.dumps({"sources": [{"policy": [url]}]})
    assert message(shop, policy=policy) == f"Error: {text}"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--spam"], "unknown flag: --spam"),
        (
            ["--workers=x"],
            'invalid argument "x" for "--workers" flag: strconv.ParseInt: parsing "x"',
        ),
        (["--strict=maybe"], 'invalid argument "maybe" for "-s, --strict" flag: strconv.ParseBool'),
        (["--policy"], "flag needs an argument: --policy"),
    ],
)
def test_flags_that_cannot_be_read_are_one_line(shop: Shop, flags: list[str], text: str) -> None:
    done = shop.validate(*flags)
    assert (done.status, done.out) == (1, "")
    line, _, rest = done.err.partition("\n")
    assert line.startswith(f"Error: {text}")
    assert "Usage" not in rest and "Error" not in rest


def test_one_component_that_cannot_be_judged_by_its_policy_stands_for_all(shop: Shop) -> None:
    shop.publish("web")
    policy = json.dumps(
        {"sources": [{"policy": [shop.rules()], "config": {"include": ["nothing.here"]}}]}
    )
    logged, _, told = message(shop, policy=policy).partition("\n")
    assert logged.endswith('level=error msg="no successes, warnings, or failures, check input"')
    assert told == (
        f"Error: error validating image {shop.reference('web')} of component web: "
        "no successes, warnings, or failures, check input"
    )
