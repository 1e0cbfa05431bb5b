"""Judging components by the rules of source groups.

A :class:`SourceGroupEvaluator` is made once per group: its rules are compiled
while images are still being resolved, and every component is then judged with
a single evaluation that asks for all selected packages at once. What the
answers mean is decided by the pure modules beside this one (section 4 of the
``validate image`` specification).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from conforma.cancellation import Cancellation
from conforma.errors import PolicyError
from conforma.findings import Finding
from conforma.oci.reference import Reference
from conforma.policy.criteria import Criteria
from conforma.policy.effective_time import nanoseconds
from conforma.policy.judgement import GroupOutcome, Plan
from conforma.policy.presentation import Findings
from conforma.policy.rego.annotations import RuleDetails
from conforma.policy.rego.engine import Builtin, Engine, Input, Output
from conforma.policy.rules import Rule, RuleBook
from conforma.policy.scoring import Applicable, Item, Subject
from conforma.policy.selection import FilterType, Selection, pipeline_intentions
from conforma.policy.source_group import Patterns, SourceGroup

trace_log = logging.getLogger("conforma.rego")

TRACE: Final = 5
"""The log level of evaluation traces, below ``logging.DEBUG``."""

# The Go tool shows each rule the file its input was written to; there is none here.
_INPUT_FILE: Final[Mapping[str, str]] = {"name": "input.json", "dir": "/"}

_NO_RULES: Final = "no rego files found in policy subdirectory"

_PLANS: Final = 64


class Judge(Protocol):
    """Who says what rules think of a component; see :meth:`SourceGroupEvaluator.judge`."""

    def judge(
        self,
        document: bytes | Input,
        *,
        image: Reference,
        component_name: str,
        moment: datetime,
        builtins: Mapping[str, Builtin] | None = None,
        cancellation: Cancellation | None = None,
    ) -> GroupOutcome:
        """What the rules say about the component that ``document`` describes."""


class SourceGroupEvaluator:
    """The compiled rules of one source group with its criteria; safe to share between threads."""

    def __init__(
        self,
        engine: Engine,
        group: SourceGroup,
        *,
        policy_dirs: Sequence[Path],
        data_dirs: Sequence[Path] = (),
        configuration: Patterns | None = None,
        sigstore_options: Mapping[str, Any] | None = None,
        started: datetime,
        mode: FilterType = "include-exclude",
        trace: bool = False,
        origins: Mapping[Path, str] | None = None,
    ) -> None:
        """Start compiling in the background; faults show up at the first use.

        ``configuration`` is the policy-wide one, ``sigstore_options`` becomes
        ``data.config.default_sigstore_opts`` and ``started`` the moment that
        ``data.config.policy.when_ns`` holds until a component has its own.
        ``origins`` says which source each directory holds, for hints.
        """
        document: dict[str, Any] = {
            "config": {
                "policy": {"when_ns": nanoseconds(started)},
                "default_sigstore_opts": dict(sigstore_options or {}),
            }
        }
        if group.rule_data is not None:
            document["rule_data__configuration__"] = group.rule_data
        self._criteria = Criteria.of(group, configuration)
        self._mode = mode
        self._intentions = pipeline_intentions(group.rule_data)
        self._trace = trace
        self._origins = dict(origins or {})
        self._policy_dirs = tuple(policy_dirs)
        self._ruleset = engine.compile(policy_dirs, data_dirs, document, wait=False)
        self._lock = threading.Lock()
        self._book: RuleBook | PolicyError | None = None
        # Most components share one; items for some images or components make a few more.
        self._plan = lru_cache(maxsize=_PLANS)(self._plan_for)

    @property
    def book(self) -> RuleBook:
        """The rules of the group.

        Raises ``CompileFailed`` for a file that does not parse, ``PolicyError``
        for rules that contradict section 4.1.
        """
        with self._lock:
            if self._book is None:
                try:
                    self._book = RuleBook.of(self._ruleset.annotations)
                except PolicyError as error:
                    # Every component meets the same fault; it is looked for once.
                    self._book = self._located(error)
            if isinstance(self._book, PolicyError):
                raise self._book.with_traceback(None)
            return self._book

    def ready(self) -> None:
        """Wait until the rules can be asked. Raises as ``judge`` does for rules that cannot."""
        try:
            self._ruleset.ready()
        except PolicyError as error:
            self._located(error)
            raise
        _ = self.book

    def _located(self, error: PolicyError) -> PolicyError:
        """The error; if it is about files of ours, its hint says whose copies they are."""
        named = [
            f"{self._origins[path]} has no .rego files; //DIRECTORY behind it names a part of it"
            for path in self._policy_dirs
            if error.message == _NO_RULES and path in self._origins and not _has_rules(path)
        ]
        named += [
            f"{path} is a copy of {origin}"
            for path, origin in self._origins.items()
            if f"{path}/" in error.message
        ]
        if named and error.hint is None:
            error.hint = "\n".join(named)
        return error

    def selection(self, image: Reference, component_name: str, moment: datetime) -> Selection:
        """Which packages and results count for a component at a moment; raises as ``book`` does."""
        return self._select(self._criteria.applicable(image, component_name, moment))

    def _select(self, items: Applicable) -> Selection:
        return Selection(self.book, items, self._mode, self._intentions)

    def _plan_for(self, items: Applicable) -> Plan:
        return Plan.of(self._select(items))

    def dormant(
        self, subject: Subject, image: Reference, component_name: str, moment: datetime
    ) -> tuple[tuple[Item, str], ...]:
        """The items that name a subject and do not count for the component, each with the reason."""
        return self._criteria.dormant(subject, image, component_name, moment)

    def details(self, rule: Rule) -> RuleDetails:
        """What a rule of ``book`` is made of. Raises as ``book`` does."""
        return self._ruleset.describe(rule.file, rule.row)

    def judge(
        self,
        document: bytes | Input,
        *,
        image: Reference | None,
        component_name: str,
        moment: datetime,
        builtins: Mapping[str, Builtin] | None = None,
        cancellation: Cancellation | None = None,
        file: Mapping[str, str] = _INPUT_FILE,
    ) -> GroupOutcome:
        """What the group's rules say about the component that ``document`` describes.

        Without an ``image`` it is a document about something else, to which no
        item for an image applies; ``file`` is ``data.conftest.file``.

        Raises ``CompileFailed`` and ``PolicyError`` if the policy cannot be
        used, ``EvaluationFailed`` if a rule fails or nothing was examined at
        all, and what the engine, a builtin or ``cancellation`` raises.
        """
        plan = self._plan(self._criteria.applicable(image, component_name, moment))
        try:
            answers = self._ruleset.evaluate(
                document,
                plan.asked.queries,
                builtins=builtins,
                cancellation=cancellation,
                data={
                    "config": {"policy": {"when_ns": nanoseconds(moment)}},
                    "conftest": {"file": dict(file)},
                },
                trace=self._trace,
                on_output=_log_trace if self._trace else None,
            )
        except PolicyError as error:
            self._located(error)
            raise
        return plan.outcome(answers, moment)


def judge_all(
    evaluators: Iterable[Judge],
    document: bytes | Input,
    *,
    image: Reference,
    component_name: str,
    moment: datetime,
    builtins: Mapping[str, Builtin] | None = None,
    cancellation: Cancellation | None = None,
    also: Iterable[Finding] = (),
    info: bool = False,
) -> Findings:
    """What all source groups say about a component, and ``also``, ready for the report.

    ``also`` are the findings of the built-in checks. Nothing is merged: two
    groups with the same rule report it twice. Raises as ``judge`` does.
    """
    findings = list(also)
    for evaluator in evaluators:
        outcome = evaluator.judge(
            document,
            image=image,
            component_name=component_name,
            moment=moment,
            builtins=builtins,
            cancellation=cancellation,
        )
        findings.extend(outcome.findings)
    return Findings.of(findings, info=info)


def _has_rules(directory: Path) -> bool:
    names = (path.name.lower() for path in directory.rglob("*"))
    return any(name.endswith(".rego") and not name.endswith("_test.rego") for name in names)


def _log_trace(output: Output) -> None:
    level = TRACE if output.kind == "trace" else logging.DEBUG
    for line in output.text.splitlines():
        trace_log.log(level, "[%s] %s", output.query, line)
