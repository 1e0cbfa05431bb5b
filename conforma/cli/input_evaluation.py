"""What ``conforma validate input`` does: prepare, judge, report, exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

from msgspec import Struct

from conforma.cache.images import ImageReader
from conforma.cancellation import Cancellation
from conforma.cli import logs
from conforma.cli.color import report_options
from conforma.cli.inputs import Policy
from conforma.cli.options import Globals, ImageOptions
from conforma.cli.outcome import Collected, together
from conforma.cli.preparation import compiled, make_verifier
from conforma.cli.signals import run_until_told
from conforma.cli.version import version
from conforma.cli.world import World, open_world
from conforma.errors import BadPolicyConfig, ConformaError
from conforma.policy.effective_time import EffectiveTime, rfc3339_nano
from conforma.policy.evaluation import SourceGroupEvaluator
from conforma.policy.locate import load_policy
from conforma.policy.overrides import Settings
from conforma.policy.rego.builtins import builtins_for
from conforma.policy.rego.engine import Engine
from conforma.report import input_report, targets
from conforma.validate.input_result import InputReport, InputResult
from conforma.validate.input_run import InputJudge, judge_all


def run(entries: Sequence[str], options: ImageOptions, settings: Globals) -> int:
    """Judge every entry and write the reports; returns 0.

    Raises an explainable error, whose exit status says what kind, if a rule
    was violated or an entry could not be judged; then there is no report.
    """
    trace = logs.start_as(settings)
    outputs = targets.parse_all(
        options.output, report_options(options), formats=input_report.FORMATS, unnamed="text"
    )
    with ExitStack() as stack:
        cancellation = stack.enter_context(run_until_told(settings.timeout))
        tools = opened(stack, options, settings, cancellation)
        judge = tools.judge(tools.compiled(trace_rules="opa" in trace))
        results, errors = judge_all(entries, judge, workers=options.workers)
        if errors:
            raise together(errors)
        report = report_of(results, options, tools.policy, judge.moment)
        targets.write_each(
            outputs,
            sys.stdout.buffer,
            lambda target: input_report.render(report, target.format, target.options),
        )
        if options.strict and not report.success:
            raise ConformaError("success criteria not met")
    return 0


class Tools(Struct, frozen=True):
    """What documents are judged with: all of it is open, and the policy is read."""

    options: ImageOptions
    engine: Engine
    world: World
    policy: Policy
    cancellation: Cancellation

    def compiled(self, *, trace_rules: bool = False) -> tuple[SourceGroupEvaluator, ...]:
        """The rules of each source group, being compiled. Raises what fetching them raises."""
        self.world.sources.fetch_all(self.policy.config.urls)
        return compiled(
            self.options, self.engine, self.world.sources, self.policy, trace_rules=trace_rules
        )[0]

    def judge(self, evaluators: tuple[SourceGroupEvaluator, ...]) -> InputJudge:
        """Who judges; what rules have asked about images is remembered by nobody else."""
        images = ImageReader(self.world.registry, self.world.open_cache())
        verifier = make_verifier(self.options, self.world, self.policy)
        builtins = builtins_for(
            self.world.registry, images, verifier, self.world.load_key, self.cancellation
        )
        moment = self.policy.effective_time.moment
        return InputJudge(evaluators, builtins, moment, self.cancellation, self.options.info)


def opened(
    stack: ExitStack, options: ImageOptions, settings: Globals, cancellation: Cancellation
) -> Tools:
    """Open what judging needs; ``stack`` closes it. Raises what is wrong with the policy."""
    # The engine comes up while the policy is fetched.
    engine = stack.enter_context(Engine.start(cancellation))
    world = open_world(stack, options, settings, cancellation, None)
    return Tools(options, engine, world, _policy(options, world), cancellation)


def report_of(
    results: tuple[InputResult, ...], options: ImageOptions, policy: Policy, moment: datetime
) -> InputReport:
    """The report on what was judged at this moment."""
    return InputReport(
        results,
        policy=policy.config.as_dict(),
        version=version(),
        effective_time=rfc3339_nano(moment),
        created=datetime.now(UTC),
        show_successes=options.show_successes,
        show_warnings=options.show_warnings,
    )


def _policy(options: ImageOptions, world: World) -> Policy:
    """The policy with its moment and key. Raises one error with all that is wrong with them.

    Its key and identity only matter to rules that verify signatures themselves,
    so a policy may have neither.
    """
    problems = Collected()
    config = None
    with problems:
        config = load_policy(options.policy or "", world.sources, world.cluster)
        if not config.sources:
            raise BadPolicyConfig(
                "the policy has no sources, so no rule would judge any file",
                hint="name sources of rules: {sources: [{policy: [DIRECTORY or URL]}]}",
            )
    moment = None
    with problems:
        moment = EffectiveTime.parse(
            options.effective_time, allow_past=options.allow_past_effective_time
        )
    problems.raise_any()
    assert config is not None
    assert moment is not None
    key = world.load_key(config.public_key) if config.public_key else None
    return Policy(Settings(config, None if key else config.identity), moment, key)
