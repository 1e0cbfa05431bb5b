"""JUnit as its readers take it: the elements, attributes and order of Jenkins' schema.

The shape is that of ``junit-10.xsd`` of Jenkins' xunit plugin, in which a count of skipped tests
has no place at the top; the Go tool puts it there, and readers pass over it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree

import pytest

from conforma.validate.result import Report
from tests.report.samples import FUTURE, HOSTILE, component, full, report, text_of, undecided
from tests.report.test_hostile import everywhere


@dataclass(frozen=True)
class Shape:
    required: frozenset[str]
    optional: frozenset[str] = frozenset()
    children: frozenset[str] = frozenset()


OUTCOME = Shape(frozenset({"message"}))
SHAPES = {
    "testsuites": Shape(
        frozenset(),
        frozenset({"tests", "errors", "failures", "skipped"}),
        frozenset({"testsuite"}),
    ),
    "testsuite": Shape(
        frozenset({"name", "tests", "failures", "errors"}),
        frozenset({"id", "skipped", "time", "timestamp"}),
        frozenset({"properties", "testcase"}),
    ),
    "properties": Shape(frozenset(), children=frozenset({"property"})),
    "property": Shape(frozenset({"name", "value"})),
    "testcase": Shape(
        frozenset({"name"}),
        frozenset({"classname"}),
        frozenset({"failure", "error", "skipped"}),
    ),
    "failure": OUTCOME,
    "error": OUTCOME,
    "skipped": OUTCOME,
}
COUNTS = {"tests", "failures", "errors", "skipped", "id"}


def check(element: ElementTree.Element) -> None:
    shape = SHAPES[element.tag]
    given = set(element.attrib)
    assert shape.required <= given <= shape.required | shape.optional, element.tag
    for name in COUNTS & given:
        assert re.fullmatch(r"\d+", element.attrib[name])
    assert re.fullmatch(r"\d*(\.\d*)?", element.attrib.get("time", ""))
    tags = [child.tag for child in element]
    assert set(tags) <= shape.children
    if element.tag == "testsuite":
        assert tags.count("properties") == 1 and tags[0] == "properties"
    for child in element:
        check(child)


REPORTS = {
    "full": full(),
    "undecided": undecided(),
    "warnings": report(component(warnings=(FUTURE,))),
    "empty": report(),
    **{f"hostile-{number}": everywhere(text) for number, text in enumerate(HOSTILE)},
}


@pytest.mark.parametrize("result", REPORTS.values(), ids=REPORTS)
def test_has_the_shape_that_readers_know(result: Report) -> None:
    root = ElementTree.fromstring(text_of(result, "junit"))
    assert root.tag == "testsuites"
    check(root)
    cases = root.findall("testsuite/testcase")
    assert int(root.get("tests", "0")) == len(cases)
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(root.get(name, "0")) == len(root.findall(f"testsuite/testcase/{tag}"))
