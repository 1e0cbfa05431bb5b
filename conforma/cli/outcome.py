"""How a run ends: which errors are told, together, and with which exit status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from conforma.errors import ConformaError, Interrupted
from conforma.report.numbers import counted
from conforma.validate.result import Report

_REPEATED: Final = 5
"""Components with the same error that are named one by one."""
_LONG: Final = 4
"""Lines of an error that is told for one component only."""


def together(errors: Sequence[ConformaError]) -> ConformaError:
    """One error that says everything ``errors`` say, one after the other.

    If one of them kept us from deciding, that is the exit status.
    """
    if len(errors) == 1:
        return errors[0]
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    error = ConformaError(
        "\n".join(error.message for error in errors), hint="\n".join(hints) or None
    )
    error.exit_status = max(error.exit_status for error in errors)
    return error


class Collected:
    """Errors of several steps, collected so that all of them are told at once."""

    def __init__(self) -> None:
        self.errors: list[ConformaError] = []

    def __enter__(self) -> Collected:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Keep an explainable error; an interruption is no such thing."""
        if isinstance(error, ConformaError) and not isinstance(error, Interrupted):
            self.errors.append(error)
            return True
        return False

    def add(self, errors: Iterable[ConformaError]) -> None:
        """Keep errors that were returned instead of raised."""
        self.errors.extend(errors)

    def raise_any(self) -> None:
        """Raise what was collected, if anything was."""
        if self.errors:
            raise together(self.errors)


def is_worth_writing(report: Report) -> bool:
    """Whether the report says more than its errors.

    It does not if no component was decided and nothing but input and policy
    is to blame: then, as with the Go tool, there is no report.
    """
    undecided = report.undecided
    return len(undecided) < len(report.components) or any(
        result.error is not None and result.error.exit_status != 1 for result in undecided
    )


def raise_unless_passed(report: Report, *, strict: bool) -> None:
    """Raise what the exit status stands for, unless the report passed.

    Components that could not be decided are named one by one, but of many with
    the same error only the first. A component that did not pass is only an
    error if ``strict``.
    """
    errors: list[ConformaError] = []
    counts: Counter[str] = Counter()
    for result in report.undecided:
        assert result.error is not None
        counts[result.error.message] += 1
        if counts[result.error.message] > _named(result.error.message):
            continue
        error = ConformaError(
            f"error validating image {result.component.container_image} "
            f"of component {result.component.name}: {result.error.message}",
            hint=result.error.hint,
        )
        error.exit_status = result.error.exit_status
        errors.append(error)
    errors.extend(
        ConformaError(
            f"the same for {counted(count - _named(message), 'more component')}: {message.splitlines()[0]}"
        )
        for message, count in counts.items()
        if count > _named(message)
    )
    if strict and any(result.violations for result in report.components):
        errors.append(ConformaError("success criteria not met"))
    if errors:
        raise together(errors)


def _named(message: str) -> int:
    """How many components with this error are named: a page about a policy is read once."""
    return 1 if message.count("\n") + 1 >= _LONG else _REPEATED
