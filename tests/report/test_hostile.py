"""Text that wants to be something else, in every format.

Messages, names and codes come from images, registries and policies. Whatever they
contain, a report says it, and nothing else.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import yaml

from conforma.cache.origins import Origin
from conforma.errors import RegistryUnreachable
from conforma.findings import PolicyWarning, Success, Violation
from conforma.oci.digest import Digest
from conforma.policy.presentation import Findings
from conforma.report import input_report
from conforma.report.formats import FORMATS, Options, render
from conforma.report.wrapping import harmless
from conforma.validate.input_result import InputReport, InputResult
from conforma.validate.result import Effort, Report
from tests.report.samples import CREATED, HOSTILE, component, report, text_of

each = pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
HARMLESS = {"\n", "\t", "✕", "✓", "›", "😀", "…", "–", "·", "\ufeff"} | set(
    map(chr, range(0x20, 0x7F))
)


def everywhere(text: str) -> Report:
    """A report in which every text is ``text``."""
    metadata = {
        "code": text, "term": [text, "b"], "title": text, "description": text, "solution": text,
        "effective_on": text,
    }  # fmt: skip
    return report(
        component(
            text,
            text,
            violations=(Violation(text, metadata),),
            warnings=(PolicyWarning(text, metadata), PolicyWarning(text)),
            successes=(Success(text, metadata),),
        ),
        component(text, text, error=RegistryUnreachable(text, hint=text)),
        snapshot=text,
        key=text,
        version=text,
        effective_time=text,
        policy={"name": text},
        show_successes=True,
    )


def test_every_format_is_here() -> None:
    tested = {
        "text", "github", "json", "yaml", "sarif", "summary", "vsa", "html", "junit",
        "appstudio", "hacbs", "summary-markdown", "attestation", "policy-input", "provenance",
    }  # fmt: skip
    assert set(FORMATS) == tested


@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
def test_json_and_yaml_say_the_same_whatever_they_carry(message: str) -> None:
    result = report(
        component(
            violations=(Violation(message, {"code": message, "deep": {"b": [message, 1, []]}}),)
        ),
        key=message,
    )
    as_json = json.loads(text_of(result, "json"))
    as_yaml = yaml.safe_load(text_of(result, "yaml"))
    assert as_yaml == as_json
    assert as_json["components"][0]["violations"][0]["msg"] == message.replace("\ud800", "\ufffd")


@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
def test_text_cannot_command_a_terminal(message: str) -> None:
    result = report(
        component(message, violations=(Violation(message, {"code": message, "term": message}),))
    )
    shown = text_of(result, "text")
    harmful = set(shown) - set(map(chr, range(0x20, 0x7F))) - {"\n", "\t", "✕", "😀", "\ufeff"}
    assert not harmful
    assert shown.count("\nSuccess: ") == 0, "a message must not forge a line of the head"


@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
def test_junit_stays_well_formed(message: str) -> None:
    result = report(component(message, violations=(Violation(message, {"code": "a.b"}),)))
    suite = ElementTree.fromstring(text_of(result, "junit"))[0]
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert "<failure" not in (failure.text or "")


@pytest.mark.parametrize("name", ["text", "github", "html", "summary-markdown", "appstudio"])
@each
def test_what_people_read_cannot_command_their_terminal(name: str, message: str) -> None:
    shown = text_of(everywhere(message), name, show_successes=True)
    assert set(shown) - HARMLESS == set()


@each
def test_github_sees_no_command_but_ours(message: str) -> None:
    shown = text_of(everywhere(message), "github")
    lines = shown.split("\n")
    assert [line.partition(" ")[0] for line in lines] == [
        "::notice", "::error", "::error", "::warning", "::warning", "",
    ]  # fmt: skip
    for line in lines[:-1]:
        parsed = re.fullmatch(r"::\w+ title=([^:,]*)::(.*)", line)
        assert parsed is not None
        assert len(parsed[2]) < 20_000, "the runner would cut it off anyway"
    assert harmless(message)[:1000].replace("%", "%25").replace("\n", "%0A") in lines[2]


@each
def test_json_formats_say_exactly_what_there_is(message: str) -> None:
    said = message.replace("\ud800", "\ufffd")
    whole = everywhere(message)
    summary = json.loads(text_of(whole, "summary"))
    codes = {said: [said]} if said else {}
    assert summary["components"][0]["violations"] == codes
    assert summary["components"][1]["error"] == said
    details = json.loads(text_of(whole, "vsa"))["summary"]["component_details"]
    assert details[0]["name"] == said


@each
def test_provenance_is_one_line_that_says_exactly_what_there_is(message: str) -> None:
    said = message.replace("\ud800", "\ufffd")
    digest = Digest.of(b"a layer")
    origin = Origin(digest, 1, message, "registry", message, 0.0, 1, (message,))
    signer = {"signer": {"identity": message, "issuer": message}, "log": [message]}
    result = component(message, message, provenance={"signatures": [signer], "attestations": []})
    whole = report(result, component(message, "another"), effort=Effort(origins=(origin,)))
    text = text_of(whole, "provenance")
    assert not set(text) & {*map(chr, range(0x20)), "\u2028", "\u2029"}
    document = json.loads(text)
    assert document["components"] == [
        {
            "name": said,
            "containerImage": said,
            "success": True,
            "signatures": [
                {"signer": {"identity": said, "issuer": said}, "log": [said]},
            ],
            "attestations": [],
            "content": [str(digest)],
        },
        {"name": said, "containerImage": "another", "success": True, "content": []},
    ]
    kind = {"mediaType": said} if said else {}
    place = {"place": said} if said else {}
    assert document["content"] == [
        {"digest": str(digest), "size": 1, **kind, "source": "registry", **place, "uses": 1}
    ]


def about_inputs(text: str) -> InputReport:
    """A report on two documents in which every text is ``text``."""
    metadata = {"code": text, "term": [text, "b"], "title": text, "description": text}
    found = Findings(
        violations=(Violation(text, metadata),),
        warnings=(PolicyWarning(text, metadata),),
        successes=(Success(text, metadata),),
    )
    return InputReport(
        (InputResult(text, found), InputResult("b", found)),
        policy={"name": text},
        version=text,
        effective_time=text,
        created=CREATED,
        show_successes=True,
    )


@each
def test_reports_on_documents_are_as_harmless(message: str) -> None:
    whole = about_inputs(message)
    said = message.replace("\ud800", "\ufffd")
    shown = "".join(input_report.render(whole, "text", Options(show_successes=True)))
    assert set(shown) - HARMLESS == set()
    assert shown.count("\nSuccess: ") == 0, "a message must not forge a line of the head"
    as_json = json.loads("".join(input_report.render(whole, "json", Options())))
    assert as_json["filepaths"][0]["filepath"] == said
    assert as_json["filepaths"][0]["violations"][0]["msg"] == said
    assert yaml.safe_load("".join(input_report.render(whole, "yaml", Options()))) == as_json
    summary = json.loads("".join(input_report.render(whole, "summary", Options())))
    assert summary["filepaths"][0]["violations"] == ({said: [said]} if said else {})
    totals = "".join(input_report.render(whole, "appstudio", Options()))
    assert json.loads(totals)["failures"] == 2 and len(totals) < 500


@each
def test_sarif_messages_are_text_and_no_links(message: str) -> None:
    (run,) = json.loads(text_of(everywhere(message), "sarif"))["runs"]
    violation, *_ = run["results"]
    text = violation["message"]["text"]
    assert re.sub(r"\\([\[\]\\])", r"\1", text) == (harmless(message) or "(no message)")
    assert not re.search(r"(?<!\\)\]\(", text)
    uri = violation["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert re.fullmatch(r"[A-Za-z0-9_.~/%-]+", uri) and not uri.startswith("/")
    for rule in run["tool"]["driver"]["rules"]:
        assert not re.search(r"(?<!\\)[<>\[]", re.sub(r"`[^`]*`", "", rule["help"]["markdown"]))


class Shape(HTMLParser):
    """Everything about a page but its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, ...]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, *(name for name, _ in attrs)))
        for name, value in attrs:
            if name in {"href", "src"}:
                assert (value or "").startswith(("#", "https://", "data:,"))

    def handle_endtag(self, tag: str) -> None:
        self.seen.append(("/", tag))

    def handle_comment(self, data: str) -> None:
        self.seen.append(("comment", data))


@each
def test_html_has_the_same_elements_whatever_the_text(message: str) -> None:
    tame = "x" * len(message)
    page = text_of(everywhere(message), "html", show_successes=True)
    assert Shape(page).seen == Shape(text_of(everywhere(tame), "html", show_successes=True)).seen


@each
def test_counts_have_nothing_to_do_with_the_text(message: str) -> None:
    for name in ("appstudio", "summary-markdown"):
        assert text_of(everywhere(message), name) == text_of(everywhere("tame"), name)


@each
def test_evidence_is_passed_on_byte_for_byte(message: str) -> None:
    raw = message.encode("utf-8", "surrogatepass")
    whole = report(component(statements=(raw, raw), policy_input=raw))
    assert b"".join(render(whole, "attestation", Options())) == raw + b"\n" + raw  # type: ignore[arg-type]
    assert b"".join(render(whole, "policy-input", Options())) == raw  # type: ignore[arg-type]
