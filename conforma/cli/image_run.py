"""What ``conforma validate image`` does once its engine starts: prepare, validate, report.

Everything that can be known to be wrong before the first image is looked at
is found, and told together, before the first image is looked at.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from conforma.cli import progress, vsa
from conforma.cli.color import report_options
from conforma.cli.options import Globals, ImageOptions
from conforma.cli.outcome import Collected, is_worth_writing, raise_unless_passed
from conforma.cli.preparation import Preparation, prepare
from conforma.cli.version import version
from conforma.errors import InputError
from conforma.gotext import quoted
from conforma.policy.effective_time import rfc3339_nano
from conforma.report import targets
from conforma.validate.component import Case, examine, judge
from conforma.validate.expansion import expand
from conforma.validate.lookahead import Lookahead
from conforma.validate.result import ComponentResult, Report
from conforma.validate.run import validate_snapshot
from conforma.validate.snapshot import Component

if TYPE_CHECKING:
    from contextlib import ExitStack

    from conforma.cancellation import Cancellation
    from conforma.ledger.earlier import Earlier
    from conforma.policy.rego.engine import Engine
    from conforma.trust.identity import Identity

log = logging.getLogger(__name__)

_AHEAD: Final = 1
"""Threads that read the evidence of later components while all workers wait for rules.

More of them would take the interpreter from those that unpack layers: with four,
where the registry is near, a run took a tenth longer.
"""

_FILTER_TYPES: Final = ("include-exclude", "ec-policy")


def run(
    stack: ExitStack,
    engine: Engine | None,
    cancellation: Cancellation,
    options: ImageOptions,
    settings: Globals,
    *,
    trace_rules: bool,
) -> None:
    """Validate and write the reports; ``stack`` closes what is opened.

    Raises an explainable error, whose exit status says what kind, if the
    components did not pass, could not be decided, or were not looked at.
    """
    outputs = _targets(options)
    prepared = prepare(
        stack,
        engine,
        options,
        settings,
        cancellation,
        trace_rules=trace_rules,
        formats=frozenset(target.format for target in outputs),
    )
    _warn_of_skipped_checks(options)
    _warn_of_loose_patterns(prepared.verifier.policy.identity)
    order = vsa.order(prepared.summaries, options, stack, cancellation)
    earlier = vsa.earlier(
        prepared.summaries, options, prepared.policy, prepared.key, stack, cancellation
    )
    report = _validated(prepared, options, settings, cancellation, earlier)
    if is_worth_writing(report):
        targets.write(report, outputs, sys.stdout.buffer)
        if order is not None:
            vsa.make(report, order)
    raise_unless_passed(report, strict=options.strict)


def _validated(
    prepared: Preparation,
    options: ImageOptions,
    settings: Globals,
    cancellation: Cancellation,
    earlier: Earlier | None,
) -> Report:
    snapshot, expansion, unread = expand(prepared.snapshot, prepared.registry, cancellation)
    tools = prepared.tools(snapshot)

    def examined(component: Component) -> Case | ComponentResult:
        if earlier is not None:
            spared = vsa.spared(component, earlier, prepared.registry)
            if spared is not None:
                return spared
        if component.container_image in unread:
            raise unread[component.container_image]
        return examine(component, prepared.checks, tools)

    def validate(component: Component) -> ComponentResult:
        found = ahead.take(component)
        return judge(found, prepared.checks, tools) if isinstance(found, Case) else found

    # Who asks for one worker wants one thing after the other.
    threads = min(options.workers - 1, _AHEAD)
    with (
        Lookahead(snapshot.components, examined, _held, cancellation, threads=threads) as ahead,
        progress.shown(
            len(snapshot.components), lambda: prepared.layers.stats, quiet=settings.quiet
        ) as watcher,
    ):
        results = validate_snapshot(
            snapshot.components,
            validate,
            workers=options.workers,
            cancellation=cancellation,
            watcher=watcher,
        )
    moments = (result.moment for result in results if result.moment is not None)
    return Report(
        results,
        snapshot=options.snapshot,
        key=prepared.key,
        policy=prepared.policy,
        version=version(),
        effective_time=rfc3339_nano(prepared.checks.effective_time.for_report(moments)),
        created=datetime.now(UTC),
        show_successes=options.show_successes,
        info=options.info,
        expansion=expansion,
        effort=prepared.effort(),
    )


def _held(found: Case | ComponentResult) -> int:
    return found.size if isinstance(found, Case) else 0


def _warn_of_skipped_checks(options: ImageOptions) -> None:
    if options.skip_image_sig_check:
        log.warning("Image signature check skipped")
    if options.skip_att_sig_check:
        log.warning(
            "Attestation signature check skipped, fetching attestations without verification"
        )
    if options.skip_image_sig_check and options.skip_att_sig_check:
        log.warning(
            "Both --skip-image-sig-check and --skip-att-sig-check are active, "
            "all cryptographic verification is disabled"
        )


def _warn_of_loose_patterns(identity: Identity | None) -> None:
    for pattern in identity.unanchored if identity is not None else ():
        log.warning(
            "the identity pattern %s also matches in the middle of longer names; "
            "begin it with ^ and end it with $",
            quoted(pattern),
        )


def _targets(options: ImageOptions) -> tuple[targets.Target, ...]:
    """The outputs; what is wrong with them is found before any work begins."""
    with Collected() as problems:
        if options.filter_type not in _FILTER_TYPES:
            raise InputError(
                f"invalid --filter-type: {quoted(options.filter_type)} "
                f"(valid: {', '.join(_FILTER_TYPES)})"
            )
    texts = list(options.output)
    if options.output_file:
        texts.append(f"json={options.output_file}")
    found: tuple[targets.Target, ...] = ()
    with problems:
        found = targets.parse_all(texts, report_options(options))
    problems.raise_any()
    return found
