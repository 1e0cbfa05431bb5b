"""``conforma validate input --server``: the policy is compiled once, documents come over HTTP.

What is asked and answered is in ``conforma.serve.judging``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Final

from conforma.cancellation import Cancellation
from conforma.cli import logs
from conforma.cli.input_evaluation import Tools, opened, report_of
from conforma.cli.options import Globals, ImageOptions
from conforma.cli.signals import run_until_told
from conforma.cli.version import version
from conforma.errors import InputError
from conforma.policy.evaluation import SourceGroupEvaluator
from conforma.serve.judging import LIMITS, Judging
from conforma.serve.server import Server
from conforma.validate.input_files import Document
from conforma.validate.input_result import InputReport
from conforma.validate.input_run import InputJudge

log = logging.getLogger(__name__)

WITHOUT_EFFECT: Final = ("output", "strict", "workers", "no_color", "color")
# What a tag meant, and what was attached to an image, is asked again after so many seconds.
_FRESH: Final = 60.0
_NAME: Final = "input"


def check(texts: Sequence[str]) -> None:
    """Raise ``InputError`` if files to judge were named as well."""
    if any(text.strip() for text in texts):
        raise InputError(
            "--server and input files are mutually exclusive",
            hint="a server gets its documents in requests",
        )


def run(
    options: ImageOptions,
    settings: Globals,
    address: str,
    port: int,
    *,
    ignored: Sequence[str] = (),
) -> int:
    """Serve until told to stop; returns 0.

    ``ignored`` are flags that were given and have no effect. Raises what is
    wrong with the policy and its rules, ``InputError`` if the address cannot be
    listened on, and ``Interrupted`` if it is told to stop before it is ready.
    """
    trace = logs.start_as(settings)
    logs.serve()
    for name in ignored:
        log.warning("Flag --%s has no effect in server mode", name.replace("_", "-"))
    with ExitStack() as stack:
        stop = threading.Event()
        asked = stack.enter_context(run_until_told(None))
        asked.on_cancel(stop.set)
        # Whoever is being answered when we are told to stop may finish.
        cancellation = Cancellation()
        still_loading = asked.on_cancel(cancellation.cancel)
        judging = Judging()
        tools = opened(stack, options, settings, cancellation)
        started = {"address": address, "port": port, "version": version()}
        sources = {"sources": len(tools.policy.config.sources)}
        log.info("Starting server", extra={"fields": started | sources})
        server = _listening(address, port, judging)
        stack.callback(log.info, "Server stopped")
        stack.callback(server.close)
        log.info("Loading policy sources...")
        evaluators = tools.compiled(trace_rules="opa" in trace)
        for evaluator in evaluators:
            evaluator.ready()
        log.info("Policy sources loaded, %d evaluator(s) ready", len(evaluators))
        still_loading()
        judging.begin(_Judge(tools, evaluators))
        log.info("Server listening on %s", server.host)
        stop.wait()
        log.info("Shutting down server...")
    return 0


def _listening(address: str, port: int, judging: Judging) -> Server:
    """The server, which answers that it is not ready. Raises ``InputError``."""
    where = f"{address}:{port}"
    if not 0 <= port <= 65535:
        raise InputError(f"listen on {where}: {port} is no port", hint="ports end at 65535")
    try:
        return Server(
            judging,
            host=address.strip("[]"),
            port=port,
            limits=LIMITS,
            refusal=judging.refused,
        )
    except OSError as cause:
        # What Python says about a port in use names the address once more.
        known = cause.errno is not None and cause.errno > 0
        reason = (os.strerror(cause.errno or 0) if known else cause.strerror or str(cause)).lower()
        raise InputError(
            f"listen on {where}: {reason}",
            hint="choose another --server-port (0 for any that is free) or --server-address",
        ) from cause


class _Judge:
    """Judges the documents of requests, at the moment of each unless one was given."""

    def __init__(self, tools: Tools, evaluators: tuple[SourceGroupEvaluator, ...]) -> None:
        self._tools = tools
        self._evaluators = evaluators
        self._lock = threading.Lock()
        self._judge = tools.judge(evaluators)
        self._stale_at = time.monotonic() + _FRESH

    def __call__(self, documents: Sequence[Document], cancellation: Cancellation) -> InputReport:
        """The report on the documents of one request. Raises as ``InputJudge`` does."""
        chosen = self._tools.policy.effective_time
        moment = chosen.moment if chosen.kind == "given" else datetime.now(UTC)
        result = self._fresh().judge_documents(_NAME, documents, moment, cancellation)
        return report_of((result,), self._tools.options, self._tools.policy, moment)

    def _fresh(self) -> InputJudge:
        """Who judges; from time to time somebody who has not asked any registry yet."""
        with self._lock:
            if time.monotonic() >= self._stale_at:
                self._tools.world.registry.forget_all()
                self._judge = self._tools.judge(self._evaluators)
                self._stale_at = time.monotonic() + _FRESH
            return self._judge
