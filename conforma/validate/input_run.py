"""Plain documents, in parallel: every one is judged by every source group, or there is no report.

Source: commands.md 6.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from conforma.cancellation import Cancellation
from conforma.errors import ConformaError, EngineError, Interrupted
from conforma.findings import Finding, Success
from conforma.policy.evaluation import SourceGroupEvaluator
from conforma.policy.presentation import Findings
from conforma.policy.rego.engine import Builtin
from conforma.validate.exhaustion import explained
from conforma.validate.input_files import Document, read
from conforma.validate.input_result import InputResult
from conforma.validate.pool import in_parallel

log = logging.getLogger(__name__)


class InputJudge(Struct, frozen=True):
    """The rules of all source groups, and what they are asked with.

    ``moment`` is when the documents are judged; with ``info`` findings keep
    all of their metadata.
    """

    evaluators: Sequence[SourceGroupEvaluator]
    builtins: Mapping[str, Builtin]
    moment: datetime
    cancellation: Cancellation
    info: bool = False

    def judge(self, entry: str) -> InputResult:
        """What the rules say about one file, directory or inline text.

        Raises what reading it and ``judge_documents`` raise.
        """
        return self.judge_documents(entry, read(entry), self.moment, self.cancellation)

    def judge_documents(
        self,
        name: str,
        documents: Sequence[Document],
        moment: datetime,
        cancellation: Cancellation,
    ) -> InputResult:
        """What the rules say, at this moment, about what the report calls ``name``.

        Raises a ``ConformaError`` for what ``SourceGroupEvaluator.judge`` raises, with
        its hint and exit status, and ``Interrupted``.
        """
        findings: list[Finding] = []
        try:
            for evaluator in self.evaluators:
                said: list[Finding] = []
                for document in documents:
                    outcome = evaluator.judge(
                        document.raw,
                        image=None,
                        component_name="",
                        moment=moment,
                        builtins=self.builtins,
                        cancellation=cancellation,
                        file=document.file,
                    )
                    said.extend(outcome.findings)
                findings.extend(_of_all(said) if len(documents) > 1 else said)
        except Interrupted:
            raise
        except ConformaError as error:
            # A new one: rules that cannot be used raise the same error for every document.
            raise _told(f"evaluating policy: {error.message}", error) from error
        return InputResult(name, Findings.of(findings, info=self.info))


def judge_all(
    entries: Sequence[str], judge: InputJudge, *, workers: int
) -> tuple[tuple[InputResult, ...], tuple[ConformaError, ...]]:
    """The results by path, descending, and an error for each entry that has none.

    ``workers`` threads (at least one) work at a time. Raises ``Interrupted`` if
    the run was stopped or its time is up.
    """
    answers = in_parallel(entries, judge.judge, workers=workers, cancellation=judge.cancellation)
    results: list[InputResult] = []
    errors: list[ConformaError] = []
    for entry, answer in zip(entries, answers, strict=True):
        if isinstance(answer, InputResult):
            results.append(answer)
        elif isinstance(answer, Interrupted):
            raise answer
        else:
            errors.append(_about(entry, answer))
    results.sort(key=lambda result: result.path, reverse=True)
    return tuple(results), tuple(errors)


def _of_all(findings: Iterable[Finding]) -> list[Finding]:
    """The findings about several documents: a rule succeeded if it was silent about all of them."""
    said = [finding for finding in findings if not isinstance(finding, Success)]
    spoken = {finding.code for finding in said}
    passed = {f.code: f for f in findings if isinstance(f, Success) and f.code not in spoken}
    return [*said, *passed.values()]


def _about(entry: str, cause: Exception) -> ConformaError:
    """The error with the name of what could not be judged; a bug of ours is one as well."""
    error = cause if isinstance(cause, ConformaError) else explained(cause)
    if error is None:
        log.error("internal error while validating %s", entry, exc_info=cause)
        error = EngineError(f"internal error: {type(cause).__name__}: {cause}")
    return _told(f"error validating file {entry}: {error.message}", error)


def _told(message: str, error: ConformaError) -> ConformaError:
    told = ConformaError(message, hint=error.hint)
    told.exit_status = error.exit_status
    return told
