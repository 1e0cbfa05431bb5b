"""Requests as OpenTelemetry spans, for those who installed the extra ``otel`` and ask for them.

A span is made when its request is over, with the times it really had, so that
tracing costs nothing on the way. It becomes a child of whatever span is current.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from conforma.oci.options import RequestSeen

_log = logging.getLogger(__name__)
# OpenTelemetry specification, "Environment Variable Specification".
_ASKS: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_TRACES_EXPORTER",
)
_NANO: Final = 1_000_000_000


def spans_observer(environment: Mapping[str, str]) -> Callable[[RequestSeen], None] | None:
    """An observer that makes spans, or ``None`` if the environment asks for none.

    Without the libraries there is a warning and there are no spans.
    """
    wanted = any(environment.get(name) not in (None, "", "none") for name in _ASKS)
    if not wanted or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        provider = _provider(environment)
    except ImportError as cause:
        _log.warning("no traces are sent: %s; install conforma[otel]", cause)
        return None
    return spans(provider)


def spans(provider: Any) -> Callable[[RequestSeen], None]:
    """An observer that makes a span of each request with this tracer provider."""
    from opentelemetry.trace import SpanKind, Status, StatusCode

    tracer = provider.get_tracer("conforma.oci")

    def observe(seen: RequestSeen) -> None:
        url = urlsplit(seen.url)
        started = int(seen.started * _NANO)
        # Names and attributes: OpenTelemetry semantic conventions for HTTP spans.
        attributes: dict[str, str | int | float] = {
            "http.request.method": seen.method,
            "url.full": seen.url,
            "server.address": url.hostname or "",
            "http.request.resend_count": seen.attempt - 1,
            "http.request.body.size": seen.sent,
            "http.response.body.size": seen.received,
            "conforma.wait.limiter": seen.limiter,
            "conforma.wait.lane": seen.lane,
        }
        if seen.status is not None:
            attributes["http.response.status_code"] = seen.status
        span = tracer.start_span(
            seen.method, kind=SpanKind.CLIENT, start_time=started, attributes=attributes
        )
        if seen.status is None or seen.status >= 400:
            span.set_status(Status(StatusCode.ERROR, seen.problem))
        span.end(end_time=started + int(seen.whole * _NANO))

    return observe


def _provider(environment: Mapping[str, str]) -> Any:
    """The provider somebody has set up already, or one that exports as the environment says."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SpanExporter,
    )

    current = trace.get_tracer_provider()
    if isinstance(current, TracerProvider):
        return current
    exporter: SpanExporter
    if environment.get("OTEL_TRACES_EXPORTER") == "console":
        import sys

        exporter = ConsoleSpanExporter(out=sys.stderr)
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    made = TracerProvider()  # ends, and sends what is left, when the program ends
    made.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(made)
    return made
