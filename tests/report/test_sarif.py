"""SARIF: what code scanning needs, and what keeps an alert the same alert."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from conforma.findings import PolicyWarning, Violation
from conforma.validate.result import Report
from tests.report.samples import (
    FUTURE,
    REJECTED,
    TERMS,
    component,
    full,
    report,
    text_of,
    undecided,
)

TEXT = {"type": "string", "minLength": 1}
MESSAGE = {"type": "object", "required": ["text"], "properties": {"text": TEXT}}
LOCATIONS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "required": ["physicalLocation", "logicalLocations"],
        "properties": {
            "physicalLocation": {
                "required": ["artifactLocation", "region"],
                "properties": {
                    # Relative to the checkout; code scanning takes no other.
                    "artifactLocation": {
                        "properties": {"uri": {"pattern": r"^[^/:][^:]*$"}},
                        "required": ["uri"],
                    },
                    "region": {"required": ["startLine"]},
                },
            },
            "logicalLocations": {"items": {"required": ["fullyQualifiedName"]}},
        },
    },
}
NEEDED = {
    "type": "object",
    "required": ["$schema", "version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "required": ["tool", "results", "invocations"],
                "properties": {
                    "tool": {
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "required": ["name", "version", "rules"],
                                "properties": {
                                    "rules": {
                                        "items": {
                                            "required": ["id", "help"],
                                            "properties": {
                                                "id": TEXT,
                                                "shortDescription": MESSAGE,
                                                "fullDescription": MESSAGE,
                                                "help": {
                                                    **MESSAGE,
                                                    "required": ["text", "markdown"],
                                                },
                                            },
                                        }
                                    }
                                },
                            }
                        },
                    },
                    "invocations": {"items": {"required": ["executionSuccessful"]}},
                    "results": {
                        "items": {
                            "required": ["ruleId", "ruleIndex", "message", "locations"],
                            "properties": {
                                "level": {"enum": ["error", "warning"]},
                                "message": MESSAGE,
                                "locations": LOCATIONS,
                                "partialFingerprints": {"required": ["primaryLocationLineHash"]},
                            },
                        }
                    },
                },
            },
        },
    },
}
REPORTS = {
    "full": full(),
    "undecided": undecided(),
    "empty": report(),
    "bare": report(component("", "not a reference", warnings=(PolicyWarning("odd"),))),
}


def run_of(result: Report) -> dict[str, Any]:
    (run,) = json.loads(text_of(result, "sarif"))["runs"]
    return dict(run)


@pytest.mark.parametrize("name", REPORTS)
def test_has_what_code_scanning_asks_for(name: str) -> None:
    document = json.loads(text_of(REPORTS[name], "sarif"))
    jsonschema.validate(document, NEEDED)
    (run,) = document["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]


@pytest.mark.parametrize("name", REPORTS)
def test_conforms_to_the_published_schema(name: str) -> None:
    path = os.environ.get("SARIF_SCHEMA")
    if not path:
        pytest.skip("SARIF_SCHEMA does not name the SARIF 2.1.0 schema file")
    schema = json.loads(Path(path).read_text())
    validator = jsonschema.validators.validator_for(schema)
    checker = jsonschema.FormatChecker()
    document = json.loads(text_of(REPORTS[name], "sarif"))
    assert list(validator(schema, format_checker=checker).iter_errors(document)) == []


def test_rules_say_what_they_check_and_what_to_do() -> None:
    rejector = run_of(full())["tool"]["driver"]["rules"][1]
    assert rejector == {
        "id": "main.rejector",
        "shortDescription": {"text": "Reject rule"},
        "fullDescription": {"text": "This rule will always fail."},
        "help": {
            "text": "This rule will always fail.\n\nSolution: None",
            "markdown": "**Reject rule**\n\nThis rule will always fail.\n\n**Solution**\n\nNone",
        },
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["supply-chain", "main"]},
        "name": "Reject rule",
    }


def test_results_are_located_at_the_repository_and_name_the_image() -> None:
    terms, rejected, future = run_of(full())["results"]
    assert (terms["level"], future["level"]) == ("error", "warning")
    assert rejected["message"] == {"text": "Fails always"}
    (place,) = rejected["locations"]
    assert place["physicalLocation"]["artifactLocation"] == {"uri": "reg.example/shop/web"}
    assert place["logicalLocations"] == [
        {
            "name": "Unnamed",
            "fullyQualifiedName": "reg.example/shop/web@sha256:1111",
            "kind": "image",
        }
    ]
    assert terms["properties"]["exclude"] == [
        "main.reject_with_term:term2",
        "main.reject_with_term:term3",
    ]


def test_a_tag_and_the_default_registry_do_not_matter_for_the_place() -> None:
    web = component("web", "shop/web:1.0", violations=(REJECTED,))
    (result,) = run_of(report(web))["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"] == {
        "uri": "index.docker.io/shop/web"
    }


def fingerprints(*components: Any) -> list[str]:
    return [
        result["partialFingerprints"]["primaryLocationLineHash"]
        for result in run_of(report(*components))["results"]
    ]


def test_an_alert_stays_the_same_when_the_image_is_built_again() -> None:
    image = "reg.example/shop/web@sha256:"
    before = component("web", image + "1" * 64, violations=(TERMS, REJECTED))
    after = component("web", image + "2" * 64, violations=(REJECTED, TERMS))
    assert sorted(fingerprints(before)) == sorted(fingerprints(after))


def test_different_findings_have_different_fingerprints() -> None:
    image = "reg.example/shop/web@sha256:" + "1" * 64
    found = fingerprints(
        component("web", image, violations=(TERMS, REJECTED, REJECTED)),
        component("api", image, violations=(REJECTED,)),
        component("web", image.replace("shop", "mall"), violations=(REJECTED,)),
        component("web", image, violations=(Violation("other", REJECTED.metadata),)),
    )
    assert len(set(found)) == 6


def test_what_could_not_be_decided_makes_the_run_unsuccessful() -> None:
    assert run_of(full())["invocations"] == [
        {"executionSuccessful": True, "endTimeUtc": "2025-07-20T12:00:00Z"}
    ]
    run = run_of(undecided())
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    (notification,) = invocation["toolExecutionNotifications"]
    assert notification["message"]["text"] == (
        "api could not be decided: reg.example/shop/api:1.0: did not answer (try later)"
    )
    assert run["results"] == []


def test_a_finding_without_a_code_has_a_rule_of_ours() -> None:
    run = run_of(report(component(warnings=(PolicyWarning("odd"), FUTURE))))
    assert [result["ruleId"] for result in run["results"]] == ["conforma", "main.future"]
