"""Which rules a source group has, from the annotations the engine found in it.

Only values in and values out (specification of ``validate image``, section
4.1). A rule that decides is named ``deny…``, ``violation…`` or ``warn…``; an
annotation with a ``short_name`` gives it a code, under which everything else
here knows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from msgspec import Struct

from conforma.errors import PolicyError
from conforma.gotext import quoted
from conforma.policy.rego.annotations import AnnotatedRule, Annotations

Kind = Literal["failure", "warning"]

_FAILURE = re.compile(r"(?:deny|violation)(?:_[a-zA-Z0-9]+)*", re.ASCII)
_WARNING = re.compile(r"warn(?:_[a-zA-Z0-9]+)*", re.ASCII)
_XREF = re.compile(
    r"xref:(?:([^:]+):ROOT:(.+?)\.adoc(#[^\[]+)?|[\w.$#/]+)\[([\w\s/.]+)\]", re.ASCII
)
_DOCUMENTATION = "https://conforma.dev/docs"


class Rule(Struct, frozen=True):
    """What is known about a code; all but code and package may be empty."""

    code: str
    package: str
    short_name: str = ""
    title: str = ""
    description: str = ""
    solution: str = ""
    effective_on: str = ""
    collections: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    pipeline_intention: tuple[str, ...] = ()
    file: str = ""
    row: int = 0


class RuleBook(Struct, frozen=True):
    """The rules of one source group.

    ``rules`` holds those with a code of their own, by code; they may show up
    as successes. ``known`` holds them and the anonymous ones, which take part
    in package selection only. ``decisive`` lists for each package the names
    of the rules that are queried, in order of appearance. ``paths`` has the
    segments of every package.
    """

    rules: Mapping[str, Rule]
    known: tuple[Rule, ...]
    decisive: Mapping[str, tuple[str, ...]]
    paths: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, found: Iterable[AnnotatedRule]) -> RuleBook:
        """The rules of a group, in the order in which the engine found them.

        Raises ``PolicyError`` for two rules with one code and for a rule
        whose value can never be a result.
        """
        rules: dict[str, Rule] = {}
        anonymous: dict[tuple[str, str], Rule] = {}
        decisive: dict[str, list[str]] = {}
        paths: dict[str, tuple[str, ...]] = {}
        blocks: set[tuple[Path, str, int]] = set()
        for source in found:
            check_shape(source)
            package = ".".join(source.package)
            paths[package] = source.package
            names = decisive.setdefault(package, [])
            decides = rule_kind(source.name) is not None
            if decides and source.name not in names:
                names.append(source.name)
            for link in source.chain:
                # A block that applies to several rules still describes one.
                block = (source.directory, link.file, link.row)
                if _short_name(link) and block not in blocks:
                    blocks.add(block)
                    _add(rules, described_rule(link, package))
            if decides and not any(
                link.scope == "rule" and _short_name(link) for link in source.chain
            ):
                rule = _anonymous_rule(source, package)
                anonymous.setdefault((package, rule.code), rule)
        return cls(
            rules=MappingProxyType(rules),
            known=(*rules.values(), *anonymous.values()),
            decisive=MappingProxyType({name: tuple(names) for name, names in decisive.items()}),
            paths=MappingProxyType(paths),
        )

    @property
    def packages(self) -> tuple[str, ...]:
        """Every package, also those in which no rule decides, in order of appearance."""
        return tuple(self.paths)


def rule_kind(name: str) -> Kind | None:
    """What results of a rule of this name are, ``None`` if it does not decide."""
    if _FAILURE.fullmatch(name):
        return "failure"
    if _WARNING.fullmatch(name):
        return "warning"
    return None


def exception_name(name: str) -> str:
    """The name under which an ``exception`` rule refers to a deciding rule."""
    prefix, _, rest = name.partition("_")
    return rest if prefix in {"deny", "violation", "warn"} else name


def plain_text(text: str) -> str:
    """AsciiDoc text with each cross reference replaced by its label."""
    return _XREF.sub(lambda match: match[4], text)


def linked_text(text: str) -> str:
    """AsciiDoc text with each full cross reference replaced by the address it means.

    Other cross references stay.
    """

    def address(match: re.Match[str]) -> str:
        group, page, anchor, _ = match.groups()
        if not (group and page and anchor):
            return match[0]
        return f"{_DOCUMENTATION}/{group}/{page}.html{anchor}"

    return _XREF.sub(address, text)


def check_shape(source: AnnotatedRule) -> None:
    """Raise ``PolicyError`` for a rule that nobody would ask for, or whose value is no result."""
    first, *below = source.path[len(source.package) :]
    if below and rule_kind(first):
        raise PolicyError(
            f"the rule data.{'.'.join(source.path)} would never be asked for, "
            f"at {source.file}:{source.row}",
            hint=f"name it {first} or {first}_{'_'.join(below)}",
        )
    described = any(link.of_rule and link.content is not None for link in source.chain)
    if source.supported or not (described or rule_kind(source.name)):
        return
    raise PolicyError(
        f"the rule {quoted(source.text)} returns an unsupported value, "
        f"at {source.file}:{source.row}",
        hint='let it yield a message, or an object with "msg": deny contains msg if …',
    )


def _add(rules: dict[str, Rule], rule: Rule) -> None:
    if earlier := rules.get(rule.code):
        raise PolicyError(
            f"found a second rule with the same code: `{rule.code}`",
            hint=f"see {earlier.file}:{earlier.row} and {rule.file}:{rule.row}",
        )
    rules[rule.code] = rule


def _short_name(link: Annotations) -> str:
    name = link.custom.get("short_name")
    return "" if name is None else _printed(name)


def described_rule(link: Annotations, package: str) -> Rule:
    """What annotations say about a rule of ``package``; its code ends with the short name."""
    content, custom = link.content or {}, link.custom
    short_name = _short_name(link)
    return Rule(
        code=f"{package}.{short_name}",
        package=package,
        short_name=short_name,
        title=_text(content.get("title")),
        description=plain_text(_text(content.get("description"))),
        solution=plain_text(linked_text(_text(custom.get("solution")))),
        effective_on=linked_text(_text(custom.get("effective_on"))),
        collections=_texts(custom.get("collections")),
        depends_on=_dependencies(custom.get("depends_on")),
        pipeline_intention=_texts(custom.get("pipeline_intention")),
        file=link.file,
        row=link.row,
    )


def _anonymous_rule(source: AnnotatedRule, package: str) -> Rule:
    code = source.code or f"{package}.{source.name}"
    return Rule(
        code=code,
        package=package,
        short_name=code.rpartition(".")[2],
        file=source.file,
        row=source.row,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        return ()
    return tuple(item for item in value if isinstance(item, str))


def _dependencies(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(_printed(item) for item in value)
    return (_printed(value),)


def _printed(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
