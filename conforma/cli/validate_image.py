"""The beginning of ``conforma validate image``: nothing but what the policy engine needs to start.

The engine is a process of its own. It comes up while this one loads the rest
of the program, which takes a quarter of a run that finds everything in its cache.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from conforma.cli import logs
from conforma.cli.signals import run_until_told
from conforma.policy.rego.engine import Engine

if TYPE_CHECKING:
    from conforma.cli.options import Globals, ImageOptions


def run(options: ImageOptions, settings: Globals) -> int:
    """Validate and write the reports; returns 0.

    Raises an explainable error, whose exit status says what kind, if the
    components did not pass, could not be decided, or were not looked at.
    """
    trace = logs.start_as(settings)
    with ExitStack() as stack:
        cancellation = stack.enter_context(run_until_told(settings.timeout))
        engine = stack.enter_context(Engine.start(cancellation)) if options.policy else None
        from conforma.cli import image_run

        image_run.run(stack, engine, cancellation, options, settings, trace_rules="opa" in trace)
    return 0
