"""Every format against the samples of specification section 7."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
import yaml
from msgspec.structs import replace

from conforma.findings import PolicyWarning, Success, Violation
from conforma.validate.result import Report
from tests.report.samples import (
    ACCEPTED,
    FUTURE,
    REF,
    REJECTED,
    SIGNED,
    TERMS,
    component,
    full,
    report,
    text_of,
    undecided,
)

TEXT = """\
Success: false
Result: FAILURE
Violations: 2, Warnings: 1, Successes: 2
Component: Unnamed
ImageRef: reg.example/shop/web@sha256:1111

Results:
✕ [Violation] main.reject_with_term
  ImageRef: reg.example/shop/web@sha256:1111
  Reason: Fails always (term2)
  Terms: term2, term3
  Title: Reject with term rule
  Description: This rule will always fail. To exclude this rule add one or more of "main.reject_with_term:term2",
  "main.reject_with_term:term3" to the `exclude` section of the policy configuration.
  Solution: None

✕ [Violation] main.rejector
  ImageRef: reg.example/shop/web@sha256:1111
  Reason: Fails always
  Title: Reject rule
  Description: This rule will always fail. To exclude this rule add "main.rejector" to the `exclude` section of the policy
  configuration.
  Solution: None

› [Warning] main.future
  ImageRef: reg.example/shop/web@sha256:1111
  Reason: Too old. This will become a failure starting on 2099-01-01T00:00:00Z
  Title: Future rule

✓ [Success] builtin.image.signature_check
  ImageRef: reg.example/shop/web@sha256:1111
  Title: Image signature check passed
  Description: The image signature matches available signing materials.

✓ [Success] main.acceptor
  ImageRef: reg.example/shop/web@sha256:1111
  Title: Allow rule
  Description: This rule will never fail

For more information about policy issues, see the policy documentation: https://conforma.dev/docs/policy/
"""


def test_text_with_everything() -> None:
    shown = text_of(full(), "text", show_successes=True, show_policy_docs_link=True)
    assert shown == TEXT


def test_text_of_several_components_with_nothing_to_show() -> None:
    passed = (SIGNED,) * 4
    two = report(
        component("web", "reg.example/shop/web@sha256:2222", successes=passed),
        component("api", "reg.example/shop/api@sha256:1111", successes=passed),
    )
    assert text_of(two, "text") == (
        "Success: true\nResult: SUCCESS\nViolations: 0, Warnings: 0, Successes: 8\n"
        "\nComponents:\n"
        "- Name: web\n  ImageRef: reg.example/shop/web@sha256:2222\n"
        "  Violations: 0, Warnings: 0, Successes: 4\n\n"
        "- Name: api\n  ImageRef: reg.example/shop/api@sha256:1111\n"
        "  Violations: 0, Warnings: 0, Successes: 4\n\n"
    )


def test_text_hides_warnings_and_the_link_when_asked_to() -> None:
    warned = report(component(warnings=(FUTURE,)))
    assert "Results:" in text_of(warned, "text")
    quiet = text_of(warned, "text", show_warnings=False, show_policy_docs_link=True)
    assert "Results:" not in quiet and "more information" not in quiet
    assert quiet.startswith("Success: true\nResult: WARNING\nViolations: 0, Warnings: 1,")


def test_text_of_a_finding_without_code_shows_its_kind_alone() -> None:
    shown = text_of(report(component(warnings=(PolicyWarning("odd"),))), "text")
    assert "› [Warning]\n  ImageRef" in shown and "<nil>" not in shown


def test_text_shows_what_is_no_text_as_go_does() -> None:
    metadata = {"code": 5, "title": 7, "description": ["x", None], "solution": {"b": 1}}
    shown = text_of(report(component(warnings=(PolicyWarning("odd", metadata),))), "text")
    assert "› [Warning] 5\n" in shown
    assert "  Title: 7\n  Description: [x <nil>]\n  Solution: map[b:1]\n" in shown


def test_text_in_colour_wraps_mark_and_label_apart() -> None:
    shown = text_of(full(), "text", color=True, show_successes=True)
    assert "\x1b[31m✕\x1b[0m \x1b[31m[Violation] main.rejector\x1b[0m\n" in shown
    assert "\x1b[33m›\x1b[0m \x1b[33m[Warning] main.future\x1b[0m\n" in shown
    assert "\x1b[32m✓\x1b[0m \x1b[32m[Success] main.acceptor\x1b[0m\n" in shown


def test_text_names_what_could_not_be_decided() -> None:
    shown = text_of(undecided(), "text")
    assert shown.startswith("Success: false\nResult: FAILURE\n")
    assert (
        "? [Undecided] api\n  ImageRef: reg.example/shop/api:1.0\n"
        "  Reason: reg.example/shop/api:1.0: did not answer\n  Solution: try later\n"
    ) in shown


def test_json_is_the_sample_of_the_specification() -> None:
    sample = report(
        component(
            violations=(
                Violation(
                    "Fails always (term1)", {"term": "term1", "code": "main.reject_with_term"}
                ),
            ),
            warnings=(PolicyWarning("Include criterion 'nope' doesn't match any policy rule"),),
            successes=(Success("Pass", {"code": "builtin.image.signature_check"}),),
            signatures=({"keyid": "", "sig": "MEUC"},),
            attestations=({"type": "https://in-toto.io/Statement/v0.1"},),
        ),
        show_successes=True,
        policy={"publicKey": "cosign.pub"},
    )
    assert text_of(sample, "json") == (
        '{"success":false,"components":[{"name":"Unnamed",'
        '"containerImage":"reg.example/shop/web@sha256:1111","source":{},'
        '"violations":[{"msg":"Fails always (term1)","metadata":{"code":"main.reject_with_term",'
        '"term":"term1"}}],'
        '"warnings":[{"msg":"Include criterion \'nope\' doesn\'t match any policy rule"}],'
        '"successes":[{"msg":"Pass","metadata":{"code":"builtin.image.signature_check"}}],'
        '"success":false,"signatures":[{"keyid":"","sig":"MEUC"}],'
        '"attestations":[{"type":"https://in-toto.io/Statement/v0.1"}]}],'
        '"key":"","policy":{"publicKey":"cosign.pub"},"ec-version":"development",'
        '"effective-time":"2025-07-20T12:00:00Z"}'
    )


def test_json_without_components_and_with_a_snapshot_name() -> None:
    assert text_of(report(snapshot="ns/name"), "json").startswith(
        '{"success":true,"snapshot":"ns/name","components":null,"key":""'
    )


def test_json_leaves_out_successes_unless_shown() -> None:
    result = replace(full(), show_successes=False)
    assert "successes" not in json.loads(text_of(result, "json"))["components"][0]


def test_only_an_incomplete_report_has_members_of_our_own() -> None:
    complete = json.loads(text_of(full(), "json"))
    assert list(complete) == [
        "success", "components", "key", "policy", "ec-version", "effective-time",
    ]  # fmt: skip
    partial = json.loads(text_of(undecided(), "json"))
    assert partial["success"] is False and partial["undecided"] == 1
    web, api = partial["components"]
    assert web["success"] is True and "error" not in web
    assert api["success"] is False
    assert api["error"] == "reg.example/shop/api:1.0: did not answer"


def test_yaml_looks_like_the_sample() -> None:
    assert text_of(report(component(policy_input=b"")), "yaml") == (
        "components:\n- containerImage: reg.example/shop/web@sha256:1111\n  name: Unnamed\n"
        "  source: {}\n  success: true\n"
        "ec-version: development\n"
        'effective-time: "2025-07-20T12:00:00Z"\n'
        'key: ""\npolicy: {}\nsuccess: true\n'
    )


def test_yaml_quotes_as_go_does_and_keeps_keys_on_their_line() -> None:
    policy = {"plain": "/tmp/in.json", "single": "{it's}", "words": "true", "two\nlines": "* "}
    shown = text_of(report(component(), policy=policy), "yaml")
    assert yaml.safe_load(shown)["policy"] == policy
    for line in (
        "plain: /tmp/in.json",
        "single: '{it''s}'",
        'words: "true"',
        "\"two\\nlines\": '* '",
    ):
        assert f"\n  {line}\n" in shown


def _yaml_of(policy: dict[str, object]) -> str:
    """The lines of ``policy`` in a report, which mean what they were made of."""
    shown = text_of(report(component(), policy=policy), "yaml")
    assert yaml.safe_load(shown)["policy"] == policy
    return shown.partition("\npolicy:\n")[2].removesuffix("success: true\n")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("127.0.0.1:5000/app@sha256:12", "127.0.0.1:5000/app@sha256:12"),
        ("./policy", "./policy"),
        ("-a", "-a"),
        ("1.2.3", "1.2.3"),
        ("日本", "日本"),
        ("a: b", "'a: b'"),
        ("a #b", "'a #b'"),
        ("it is:", "'it is:'"),
        ("", '""'),
        ("1.0", '"1.0"'),
        ("0x1F", '"0x1F"'),
        ("12:30", '"12:30"'),
        ("2020-01-01", '"2020-01-01"'),
        ("On", '"On"'),
        ("=", '"="'),
        ("tab\t\\", r'"tab\t\\"'),
        ("\x1b \u2028 😀", r'"\e \L \U0001F600"'),
        ("a\n\nb\n", "|\n    a\n\n    b"),
        (" a\nb\n\n", "|2+\n     a\n    b\n"),
        ("a \nb", r'"a \nb"'),
    ],
)
def test_text_in_yaml_is_written_as_go_writes_it(text: str, written: str) -> None:
    assert _yaml_of({"text": text}) == f"  text: {written}\n"


def test_long_text_in_yaml_is_folded_where_go_folds_it() -> None:
    words = "word " * 20
    assert _yaml_of({"plain": f"{words}end"}) == (
        f"  plain: {words[:75].rstrip()}\n    word word word word word end\n"
    )
    assert _yaml_of({"list": [f"so: {words}end"]}) == (
        f"  list:\n  - 'so: {words[:75].rstrip()}\n    word word word word word end'\n"
    )
    assert _yaml_of({"quoted": f"\t{words}  end"}) == (
        f'  quoted: "\\t{words[:70].rstrip()}\n    word word word word word word   end"\n'
    )
    assert _yaml_of({f"{words}end": 1}) == f"  {words}end: 1\n"


def test_yaml_shows_a_key_as_a_block() -> None:
    pem = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
    shown = text_of(report(component(), key=pem), "yaml")
    assert "key: |\n  -----BEGIN PUBLIC KEY-----\n  MFkw\n" in shown
    assert yaml.safe_load(shown)["key"] == pem


def test_appstudio_counts() -> None:
    assert text_of(full(), "appstudio") == (
        '{"timestamp":"1753012800","namespace":"","successes":2,"failures":2,"warnings":1,'
        '"result":"FAILURE"}'
    )
    assert text_of(full(), "hacbs") == text_of(full(), "appstudio")


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (report(component(warnings=(FUTURE,), successes=(SIGNED,))), "WARNING"),
        (report(component(successes=(SIGNED,))), "SUCCESS"),
        (report(component()), "SKIPPED"),
        (undecided(), "FAILURE"),
    ],
)
def test_appstudio_result(result: Report, outcome: str) -> None:
    assert json.loads(text_of(result, "appstudio"))["result"] == outcome


def test_junit_is_the_sample_of_the_specification() -> None:
    sample = report(
        component(
            violations=(
                Violation(
                    "Fails always (term2)",
                    {"code": "main.reject_with_term", "term": ["term2", "term3"]},
                ),
            ),
            successes=(Success("Pass", {"code": "main.acceptor"}),),
            signatures=({"keyid": "", "sig": "MEUC"},),
        ),
        show_successes=True,
    )
    assert text_of(sample, "junit") == (
        '<testsuites tests="2" failures="1">'
        '<testsuite name="Unnamed (reg.example/shop/web@sha256:1111)" tests="2" failures="1" '
        'errors="0" id="0" time="" timestamp="2025-07-20T12:00:00Z"><properties>'
        '<property name="image" value="reg.example/shop/web@sha256:1111"></property>'
        '<property name="key" value=""></property><property name="success" value="false">'
        '</property><property name="keyId" value=""></property>'
        '<property name="signature" value="MEUC"></property></properties>'
        '<testcase name="main.acceptor: Pass" classname="main.acceptor: Pass"></testcase>'
        '<testcase name="main.reject_with_term: Fails always (term2) [term=[term2 term3]]" '
        'classname="main.reject_with_term: Fails always (term2) [term=[term2 term3]]">'
        '<failure message="Fails always (term2)"><![CDATA[Fails always (term2)]]></failure>'
        "</testcase></testsuite></testsuites>"
    )


def test_junit_counts_warnings_as_skipped_and_the_undecided_as_errors() -> None:
    root = ElementTree.fromstring(
        text_of(report(*undecided().components, component(warnings=(FUTURE,))), "junit")
    )
    assert root.attrib == {"tests": "2", "errors": "1", "skipped": "1"}
    suites = {suite.attrib["name"]: suite for suite in root}
    api = suites["api (reg.example/shop/api:1.0)"]
    assert api.attrib["errors"] == "1"
    assert api.find("testcase/error").text == "reg.example/shop/api:1.0: did not answer"
    assert suites[f"Unnamed ({REF})"].attrib["skipped"] == "1"


def test_summary_counts_by_code() -> None:
    again = replace(REJECTED, message="Fails (b)")
    result = report(
        component(
            violations=(replace(REJECTED, message="Fails (a)"), again, Violation("no code")),
            successes=(SIGNED,),
        ),
        snapshot="ns/s",
    )
    assert text_of(result, "summary") == (
        '{"snapshot":"ns/s","components":[{"name":"Unnamed","success":false,'
        '"violations":{"main.rejector":["Fails (a)","There are 1 more \\"main.rejector\\" '
        'messages"]},"warnings":{},"successes":{},"total_violations":3,"total_warnings":0,'
        '"total_successes":1}],"success":false,"key":""}'
    )
    assert json.loads(text_of(report(component()), "summary"))["success"] is True


def test_summary_counts_codes_that_are_no_text() -> None:
    odd = tuple(
        PolicyWarning(str(n), {"code": code}) for n, code in enumerate((7, 7, "", "\a", "\a"))
    )
    summary = json.loads(text_of(report(component(warnings=odd)), "summary"))
    assert summary["components"][0]["warnings"] == {
        "\a": ["3", r'There are 1 more "\a" messages'],
        "7": ["0", 'There are 1 more "7" messages'],
    }


def test_summary_markdown() -> None:
    assert text_of(full(), "summary-markdown") == (
        "| Field     | Value |Status|\n|-----------|-------|-------|\n"
        "| Time | 2025-07-20 12:00:00 |  |\n| Successes | 2 | :x: |\n| Failures | 2 | :x: |\n"
        "| Warnings | 1 | :x: |\n| Result |  | :x: |\n"
    )
    good = text_of(report(component(successes=(SIGNED,))), "summary-markdown")
    assert "| Successes | 1 | :white_check_mark: |" in good
    assert "| Result |  | :white_check_mark: |" in good
    assert "| Undecided | 1 | :x: |" in text_of(undecided(), "summary-markdown")


def test_attestations_and_policy_inputs_are_lines_in_report_order() -> None:
    result = report(
        component(statements=(b'{"a":1}', b'{"b":2}'), policy_input=b'{"i":1}'),
        component(),
        component(statements=(b'{"c":3}',), policy_input=b'{"i":3}'),
    )
    assert text_of(result, "attestation") == '{"a":1}\n{"b":2}\n{"c":3}'
    assert text_of(result, "policy-input") == '{"i":1}\n\n{"i":3}'


def test_vsa_predicate() -> None:
    result = report(component(violations=(TERMS,), warnings=(FUTURE,), successes=(ACCEPTED,)))
    assert text_of(result, "vsa") == (
        '{"policy":{},"imageRefs":["reg.example/shop/web@sha256:1111"],'
        '"timestamp":"2025-07-20T12:00:00Z","status":"failed","verifier":"conforma",'
        '"summary":{"snapshot":"","components":1,"success":false,"key":"",'
        '"ec_version":"development","component_details":[{"name":"Unnamed",'
        '"containerImage":"reg.example/shop/web@sha256:1111","success":false,"violations":1,'
        '"warnings":1,"successes":0}],"Violations":1,"Warnings":1}}'
    )
