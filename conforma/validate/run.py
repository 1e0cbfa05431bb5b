"""All components of a snapshot, in parallel, with the same report whatever the timing.

A component that cannot be decided is an entry of the report with its error;
it neither hides the others nor stops them. Only an interruption by the user
ends the run without a report.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from conforma.cancellation import Cancellation
from conforma.errors import ConformaError, DeadlineExceeded, EngineError, Interrupted
from conforma.validate.exhaustion import explained
from conforma.validate.pool import in_parallel
from conforma.validate.result import ComponentResult
from conforma.validate.snapshot import Component

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Who is told about progress, from any of the worker threads."""

    def started(self, component: Component) -> None:
        """Work on the component has begun."""

    def finished(self, result: ComponentResult) -> None:
        """The component is done, decided or not."""


def validate_snapshot(
    components: Sequence[Component],
    validate: Callable[[Component], ComponentResult],
    *,
    workers: int,
    cancellation: Cancellation,
    watcher: Watcher | None = None,
) -> tuple[ComponentResult, ...]:
    """The results of all components in report order: by image, descending.

    ``workers`` threads (at least one) work at a time. Raises ``Interrupted``
    if the user stopped the run. When its time is up, components without a
    result are undecided.
    """

    def judge(component: Component) -> ComponentResult:
        if watcher is not None:
            watcher.started(component)
        result = _contained(component, validate)
        if watcher is not None:
            watcher.finished(result)
        return result

    answers = in_parallel(components, judge, workers=workers, cancellation=cancellation)
    results: list[ComponentResult] = []
    for component, answer in zip(components, answers, strict=True):
        if isinstance(answer, ComponentResult):
            results.append(answer)
        elif isinstance(answer, DeadlineExceeded):
            results.append(_undecided(component, answer))
        else:
            raise answer
    return in_report_order(results)


def in_report_order(results: Iterable[ComponentResult]) -> tuple[ComponentResult, ...]:
    """The results by image, descending; those of one image in the order given (section 7.1)."""
    return tuple(sorted(results, key=lambda result: result.image, reverse=True))


def _contained(
    component: Component, validate: Callable[[Component], ComponentResult]
) -> ComponentResult:
    """The result, or the error in the form of one; a bug of ours is an error as well."""
    try:
        return validate(component)
    except DeadlineExceeded as error:
        return _undecided(component, error)
    except Interrupted:
        raise
    except ConformaError as error:
        return _undecided(component, error)
    except Exception as error:
        if (explanation := explained(error)) is not None:
            return _undecided(component, explanation)
        log.exception("internal error while validating %s", component.container_image)
        return _undecided(
            component,
            EngineError(f"internal error: {type(error).__name__}: {error}"),
        )


def _undecided(component: Component, error: ConformaError) -> ComponentResult:
    # The result outlives the run; the frames of a traceback hold documents and open files.
    cause: BaseException | None = error
    while cause is not None and cause.__traceback__ is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return ComponentResult(component, component.container_image, error=error)
