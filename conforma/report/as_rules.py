"""What ``conforma inspect policy`` prints: the rules of sources, as text, names or JSON.

The layout is that of the Go tool (specification of commands, section 15).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from conforma import gojson
from conforma.report.wrapping import harmless, harmless_line

if TYPE_CHECKING:
    from conforma.policy.inspection import Entry

    Inspected = Mapping[str, Sequence[Entry]]
    """The entries of each source, by its pinned URL."""

_DOCUMENTATION: Final = "https://conforma.dev/docs/policy/packages"


def _text(inspected: Inspected) -> Iterator[str]:
    for source in sorted(inspected):
        yield f"# Source: {harmless_line(source)}\n\n"
        yield from _shown(inspected[source], _described)


def _names(inspected: Inspected) -> Iterator[str]:
    for source in sorted(inspected):
        yield from _shown(inspected[source], lambda entry: f"{entry.rule.code}\n")


def _json(inspected: Inspected) -> Iterator[str]:
    document = {
        source: [_members(entry) for entry in inspected[source]] for source in sorted(inspected)
    }
    yield f"{gojson.dumps(document)}\n"


FORMATS: Final[Mapping[str, Callable[[Inspected], Iterator[str]]]] = {
    "json": _json,
    "text": _text,
    "names": _names,
    "short-names": _names,
}
"""What ``--output`` accepts. A rule has one name, so both formats of names are the same."""


def _shown(entries: Sequence[Entry], describe: Callable[[Entry], str]) -> Iterator[str]:
    """What people read: rules; what is said about packages and documents is left to JSON."""
    for entry in entries:
        if entry.link.content is None:
            yield f"{harmless_line('.'.join(entry.link.path))}\n(No annotations found)\n--\n"
        elif entry.link.scope == "rule":
            yield harmless(describe(entry))


def _described(entry: Entry) -> str:
    rule = entry.rule
    lines = [f"{rule.code} ({entry.kind})"]
    if len(entry.link.path) > 1 and rule.short_name:
        package = entry.link.path[-2]
        lines.append(f"{_DOCUMENTATION}/release_{package}.html#{package}__{rule.short_name}")
    lines += [rule.title, rule.description]
    if rule.collections:
        lines.append(f"[{' '.join(rule.collections)}]")
    return "".join(f"{line}\n" for line in (*lines, "--"))


def _members(entry: Entry) -> dict[str, Any]:
    link = entry.link
    location = {"file": link.file, "row": link.row, "col": link.column}
    members: dict[str, Any] = {"location": location, "path": list(link.terms)}
    return members if link.content is None else {"annotations": link.content} | members
