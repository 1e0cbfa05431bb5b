"""``conforma explain``: what a rule is, what it saw, and what decided."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from conforma.cli.root import run
from conforma.serve.signing_key import SigningKey
from tests.cli.shop import Outcome, Shop

pytestmark = pytest.mark.slow

RULES = """
package main

import rego.v1

# METADATA
# title: No debug labels
# description: Images must not be built for debugging.
# custom:
#   short_name: no_debug
#   solution: Build it again.
#   collections: [strict, minimal]
#   effective_on: "2020-01-01T00:00:00Z"
deny contains result if {
    some name, value in labels
    value == "true"
    result := {"code": "main.no_debug", "msg": sprintf("%s is set", [name]), "term": name}
}

# METADATA
# title: Consequence
# custom:
#   short_name: consequence
#   depends_on: main.no_debug
deny contains {"code": "main.consequence", "msg": "So is this"} if input.image.ref

# METADATA
# title: Later
# custom:
#   short_name: later
#   effective_on: "2999-01-01T00:00:00Z"
deny contains {"code": "main.later", "msg": "Not yet."} if input.component_name

deny contains result if {
    data.nothing.here
    result := {"code": "main.loose", "msg": "No annotation"}
}

labels := input.image.config.Labels
"""


def explain(shop: Shop, *args: str, status: int = 0, **policy: Any) -> Outcome:
    source = {"policy": [shop.rules(RULES)]} | policy
    options = [
        f"--policy={json.dumps({'sources': [source]})}",
        f"--public-key={shop.key_file()}",
        f"--images={json.dumps({'components': shop.components})}",
        f"--cache-dir={shop.directory / 'cache'}",
        "--ignore-rekor",
        "--retry-max-retry=0",
    ]
    shop.capture.readouterr()
    ended = run(["explain", *args, *(o for o in options if not _given(o, args))])
    captured = shop.capture.readouterr()
    done = Outcome(ended, captured.out, captured.err)
    assert done.status == status, done.err
    return done


def _given(option: str, args: Sequence[str]) -> bool:
    return any(arg.partition("=")[0] == option.partition("=")[0] for arg in args)


def explained(shop: Shop, code: str, *args: str, **policy: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(explain(shop, code, "--output=json", *args, **policy).out)
    return document


def test_says_what_the_rule_is_what_it_saw_and_why_it_counts(shop: Shop) -> None:
    digest = shop.publish("web", labels={"debug": "true"})
    shown = explain(shop, "main.no_debug", config={"include": ["@strict"]}).out
    time = shown.partition("Judged as of  ")[2].partition("\n")[0]
    assert shown == (
        "Code          main.no_debug\n"
        "Component     web\n"
        f"Image         {shop.server.host}/shop/web@{digest}\n"
        f"Judged as of  {time}\n"
        "\n"
        "Source group 1\n"
        "  Title         No debug labels\n"
        "  Defined at    main.rego:14, package main\n"
        "  Collections   strict, minimal\n"
        "  In force from 2020-01-01T00:00:00Z\n"
        "  Description   Images must not be built for debugging.\n"
        "  Solution      Build it again.\n"
        "\n"
        "  As written\n"
        "    deny contains result if {\n"
        "        some name, value in labels\n"
        '        value == "true"\n'
        '        result := {"code": "main.no_debug", "msg": sprintf("%s is set", [name]), '
        '"term": name}\n'
        "    }\n"
        "\n"
        "  It looks at\n"
        '    input.image.config.Labels  {"debug":"true"}\n'
        "\n"
        "  Reported as a violation (term debug): debug is set\n"
        "    said by data.main.deny\n"
        "    include   10  @strict  (config.include)\n"
        "    include 10 > exclude 0: kept\n"
    )


def test_names_the_entries_that_left_a_result_out_with_their_scores(shop: Shop) -> None:
    digest = shop.publish("web", labels={"debug": "true"})
    volatile = {"exclude": [{"value": "main.no_debug:debug", "imageDigest": str(digest)}]}
    (group,) = explained(
        shop, "main.no_debug", config={"include": ["@strict"]}, volatileConfig=volatile
    )["groups"]
    result, *_ = group["results"]
    assert (result["fate"], result["kind"]) == ("excluded", "violation")
    assert result["include"] == [
        {"value": "@strict", "origin": "config.include", "image": "", "component": "", "score": 10}
    ]
    (exclude,) = result["exclude"]
    assert exclude["origin"] == "volatileConfig.exclude"
    assert (exclude["image"], exclude["score"]) == (str(digest), 210)
    assert (result["include_score"], result["exclude_score"]) == (10, 210)


def test_names_the_entries_that_do_not_count_here(shop: Shop) -> None:
    shop.publish("web", labels={"debug": "true"})
    volatile = {
        "exclude": [
            {"value": "main.no_debug", "effectiveUntil": "2020-02-02T00:00:00Z"},
            {"value": "main", "componentNames": ["api"]},
            {"value": "other.rule", "componentNames": ["api"]},
        ]
    }
    shown = explain(shop, "main.no_debug", volatileConfig=volatile).out
    assert shown.endswith(
        "\n  Items that name it but do not count here:\n"
        "    main.no_debug  (volatileConfig.exclude): in force until 2020-02-02T00:00:00Z\n"
        "    main  (volatileConfig.exclude, component api): for component api\n"
    )


def test_a_rule_that_is_silent_passed_and_a_tie_is_left_out(shop: Shop) -> None:
    shop.publish("web", labels={"debug": "false"})
    assert "Passed: the rule had nothing to say\n" in explain(shop, "main.no_debug").out
    tie = explain(
        shop, "main.no_debug", config={"include": ["main", "main.later"], "exclude": ["main.*"]}
    ).out
    assert "include 10 = exclude 10, and ties are left out\n" in tie


def test_a_consequence_and_a_date_to_come(shop: Shop) -> None:
    shop.publish("web", labels={"debug": "true"})
    assert (
        "  Left out as a consequence, would be a violation: So is this\n"
        "    said by data.main.deny\n"
        "    because a rule it depends on has spoken: main.no_debug\n"
    ) in explain(shop, "main.consequence").out
    later = explain(shop, "main.later").out
    assert "In force from 2999-01-01T00:00:00Z" in later
    assert (
        "Reported as a warning: Not yet. This will become a failure starting on "
        "2999-01-01T00:00:00Z" in later
    )


def test_a_rule_without_annotation_whose_package_was_not_selected(shop: Shop) -> None:
    shop.publish("web")
    (shop.directory / "rules").mkdir()
    (shop.directory / "rules" / "other.rego").write_text(
        "package other\nimport rego.v1\n# METADATA\n# custom:\n#   short_name: fine\n"
        'deny contains {"code": "other.fine", "msg": "m"} if false\n'
    )
    group = explained(shop, "main.loose", config={"include": ["other"]})["groups"][0]
    assert group["evaluated"] is False and group["results"] == []
    assert group["looks_at"]["data"] == ["data.nothing.here"]
    shown = explain(shop, "main.loose", config={"include": ["other"]}).out
    assert "Not evaluated: no include item selects a rule of its package.\n" in shown


def test_checks_of_our_own_and_components_that_never_reach_the_rules(shop: Shop) -> None:
    shop.publish("web")
    assert "Made by conforma itself; include and exclude do not concern it.\nSuccess\n" in (
        explain(shop, "builtin.image.signature_check").out
    )
    other = f"--public-key={shop.key_file(SigningKey.generate())}"
    shown = explain(shop, "main.no_debug", other).out
    assert "Not evaluated: the component did not get as far as the rules.\n" in shown
    assert "No image attestations found matching the given public key." in shown
    failed = explained(shop, "builtin.attestation.signature_check", other)
    assert failed["judged"] is False
    assert [finding["kind"] for finding in failed["reported"]] == ["violation"]


def test_an_unknown_code_gets_the_names_that_come_near(shop: Shop) -> None:
    shop.publish("web")
    done = explain(shop, "main.no_debgu", status=1)
    assert done.err.startswith(
        'Error: no rule of the policy has the code "main.no_debgu"\nhint: did you mean main.no_debug'
    )
    assert "builtin.image.accessible" in explain(shop, "accessible", status=1).err
    assert "the policy has 8 codes" in explain(shop, "zzzzzzzzz", status=1).err


def test_asks_which_component_is_meant(shop: Shop) -> None:
    shop.publish("web")
    shop.publish("api", labels={"debug": "true"})
    done = explain(shop, "main.no_debug", status=1)
    assert done.err == "Error: which component?\nhint: --component takes one of: api, web\n"
    done = explain(shop, "main.no_debug", "--component=mail", status=1)
    assert done.err.startswith('Error: no component is named "mail"\n')
    assert "debug is set" in explain(shop, "main.no_debug", "--component=api").out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "explain takes the code of one rule"),
        (["a.b", "c.d"], "explain takes the code of one rule"),
        (["a.b", "--output=xml"], 'invalid --output: "xml" (valid: text, json)'),
        (["a.b", "--workers=3"], "unknown flag: --workers"),
        (["a.b", "--images="], "neither Snapshot nor image reference provided to validate"),
    ],
)
def test_says_what_is_wrong_with_the_command(shop: Shop, args: list[str], message: str) -> None:
    assert explain(shop, *args, status=1).err.startswith(f"Error: {message}")


def test_what_a_message_contains_cannot_command_the_terminal(shop: Shop) -> None:
    shop.publish("web", labels={"a\x1b[31m\u202eb": "true"})
    shown = explain(shop, "main.no_debug").out
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "a\\x1b[31m\\u202eb is set" in shown
