"""The story of one component: reachable, signed, attested, and judged by the rules.

Specification sections 5.1 to 5.5. This is the only place where an error about
an image becomes a violation, and each kind that does is named. Everything
else, above all a registry that could not be asked, is raised: then nothing
is known about the component, which is not the same as "it did not pass".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from msgspec.structs import replace

from conforma.cancellation import Cancellation
from conforma.errors import NoMatchingSignature, NotFound, TrustError
from conforma.findings import Finding, Success, Violation
from conforma.oci.reference import Reference
from conforma.policy.effective_time import EffectiveTime
from conforma.policy.evaluation import Judge, judge_all
from conforma.policy.presentation import Findings
from conforma.policy.rego.inputs import Input
from conforma.trust import slsa
from conforma.trust.signature import Attestation, Signature, reported
from conforma.validate.policy_input import PolicyInput
from conforma.validate.result import ComponentResult
from conforma.validate.snapshot import Component

if TYPE_CHECKING:
    from datetime import datetime

    from conforma.oci.registry import Registry
    from conforma.trust.verify import Verifier

log = logging.getLogger(__name__)

_SYNTAX: Final = (
    "builtin.attestation.syntax_check",
    "Attestation syntax check passed",
    "The attestation has correct syntax.",
)
_IMAGE_SIGNATURE: Final = (
    "builtin.image.signature_check",
    "Image signature check passed",
    "The image signature matches available signing materials.",
)
_ATTESTATION_SIGNATURE: Final = (
    "builtin.attestation.signature_check",
    "Attestation signature check passed",
    "The attestation signature matches available signing materials.",
)
_ACCESSIBLE: Final = (
    "builtin.image.accessible",
    "Image URL is accessible",
    "The image URL is available and accessible.",
)

BUILT_IN: Final = frozenset(
    code for code, _, _ in (_SYNTAX, _IMAGE_SIGNATURE, _ATTESTATION_SIGNATURE, _ACCESSIBLE)
)
"""The codes of the checks made here."""

MakeInput = Callable[
    [Component, Reference, tuple[Signature, ...], tuple[Attestation, ...]], PolicyInput
]


class Checks(Struct, frozen=True):
    """What is checked and what of it is kept, the same for every component of a run."""

    effective_time: EffectiveTime
    skip_image_signature: bool = False
    skip_attestation_signature: bool = False
    keyed: bool = True
    info: bool = False
    keep_statements: bool = False
    keep_policy_input: bool = False


class Tools(Struct, frozen=True):
    """What a component is validated with; all of it is safe to share between threads."""

    registry: Registry
    verifier: Verifier
    evaluators: tuple[Judge, ...]
    builtins: Mapping[str, Callable[..., Any]]
    make_input: MakeInput
    cancellation: Cancellation


class Case(Struct, frozen=True):
    """A component with its evidence, as it goes to the rules."""

    result: ComponentResult
    """All but what the rules will say."""
    image: Reference
    findings: list[Finding]
    """Of the checks made before."""
    asked: Input
    moment: datetime

    @property
    def size(self) -> int:
        """Bytes that are held for this component alone."""
        return len(self.asked.text)


class _Evidence(Struct):
    """What was found out about an image so far."""

    findings: list[Finding]
    signatures: tuple[Signature, ...] = ()
    attestations: tuple[Attestation, ...] = ()
    attested: bool = False


def validate_component(component: Component, checks: Checks, tools: Tools) -> ComponentResult:
    """All that can be said about one component, whatever state it is in.

    Raises ``BadReference``, and every error that kept us from finding out.
    """
    found = examine(component, checks, tools)
    return found if isinstance(found, ComponentResult) else judge(found, checks, tools)


def examine(component: Component, checks: Checks, tools: Tools) -> Case | ComponentResult:
    """What there is for the rules to judge, or the result where there is nothing.

    Raises as :func:`validate_component` does.
    """
    given = Reference.parse(component.container_image)
    try:
        image = given.pinned(tools.registry.head(given).digest)
    except NotFound as error:
        violation = _failed(_ACCESSIBLE, f"Image URL is not accessible: {error.message}")
        return ComponentResult(
            component,
            component.container_image,
            violations=Findings.of((violation,), info=checks.info).violations,
        )
    evidence = _Evidence([])
    _check_image_signature(image, checks, tools, evidence)
    _check_attestations(image, checks, tools, evidence)
    if not evidence.attested:
        return _result(component, image, checks, _Evidence(evidence.findings))
    evidence.findings.append(_syntax(evidence.attestations))
    if not evidence.attestations:
        evidence.findings.append(
            Violation("No attestations contain a subject that match the given image.")
        )
        return _result(component, image, checks, evidence)
    return _case(component, image, checks, tools, evidence)


def _case(
    component: Component, image: Reference, checks: Checks, tools: Tools, evidence: _Evidence
) -> Case:
    moment = checks.effective_time.for_component(
        attestation.statement.document for attestation in evidence.attestations
    )
    document = tools.make_input(component, image, evidence.signatures, evidence.attestations)
    result = _result(
        component,
        image,
        checks,
        evidence,
        policy_input=document.text() if checks.keep_policy_input else b"",
    )
    # Nothing parsed goes along: while components wait for their turn in the
    # engine, their attestations would be most of our memory.
    return Case(result, image, evidence.findings, document.for_rules(), moment)


def judge(case: Case, checks: Checks, tools: Tools) -> ComponentResult:
    """The result with what the rules say. Raises every error that kept us from finding out."""
    findings = judge_all(
        tools.evaluators,
        case.asked,
        image=case.image,
        component_name=case.result.component.name,
        moment=case.moment,
        builtins=tools.builtins,
        cancellation=tools.cancellation,
        also=case.findings,
        info=checks.info,
    )
    return replace(
        case.result,
        violations=findings.violations,
        warnings=findings.warnings,
        successes=findings.successes,
    )


def _check_image_signature(
    image: Reference, checks: Checks, tools: Tools, evidence: _Evidence
) -> None:
    if checks.skip_image_signature:
        return
    try:
        evidence.signatures = tools.verifier.image_signatures(image)
    except NoMatchingSignature as error:
        message = f"Image signature check failed: {error.message}"
        if checks.keyed:
            message = (
                "No image signatures found matching the given public key. Verify the correct "
                f"public key was provided, and a signature was created. Error: {error.message}"
            )
        evidence.findings.append(_failed(_IMAGE_SIGNATURE, message))
    except TrustError as error:
        message = f"Image signature check failed: {error.message}"
        evidence.findings.append(_failed(_IMAGE_SIGNATURE, message))
    else:
        evidence.findings.append(_passed(_IMAGE_SIGNATURE))


def _check_attestations(
    image: Reference, checks: Checks, tools: Tools, evidence: _Evidence
) -> None:
    try:
        if checks.skip_attestation_signature:
            evidence.attestations = tools.verifier.unverified_attestations(image)
        else:
            evidence.attestations = tools.verifier.attestations(image)
            evidence.findings.append(_passed(_ATTESTATION_SIGNATURE))
        evidence.attested = True
    except TrustError as error:
        if checks.skip_attestation_signature:
            message = (
                "Image attestation check failed: failed to fetch attestations "
                f"(signature check skipped): {error.message}"
            )
            log.warning("Failed to fetch attestations without verification: %s", error.message)
        elif checks.keyed and isinstance(error, NoMatchingSignature):
            message = (
                "No image attestations found matching the given public key. Verify the correct "
                "public key was provided, and one or more attestations were created. Error: "
                f"{error.message}"
            )
        else:
            message = f"Image attestation check failed: {error.message}"
        evidence.findings.append(_failed(_ATTESTATION_SIGNATURE, message))


def _syntax(attestations: tuple[Attestation, ...]) -> Finding:
    if not attestations:
        return _failed(_SYNTAX, "Attestation syntax check failed: no attestation data")
    problems = [problem for a in attestations for problem in slsa.check_schema(a.statement)]
    if problems:
        listed = "\n".join(problems)
        return _failed(
            _SYNTAX,
            f"Attestation syntax check failed: attestation syntax validation failed: {listed}",
        )
    return _passed(_SYNTAX)


def _result(
    component: Component,
    image: Reference,
    checks: Checks,
    evidence: _Evidence,
    *,
    policy_input: bytes = b"",
) -> ComponentResult:
    findings = Findings.of(evidence.findings, info=checks.info)
    statements: Iterator[bytes] = (a.statement.raw for a in evidence.attestations)
    return ComponentResult(
        component,
        str(image),
        violations=findings.violations,
        warnings=findings.warnings,
        successes=findings.successes,
        signatures=tuple(reported(evidence.signatures)),
        attestations=tuple(attestation.as_dict() for attestation in evidence.attestations),
        statements=tuple(statements) if checks.keep_statements else (),
        policy_input=policy_input,
        provenance={
            "signatures": [signature.provenance() for signature in evidence.signatures],
            "attestations": [attestation.provenance() for attestation in evidence.attestations],
        },
        moment=checks.effective_time.for_component(
            attestation.statement.document for attestation in evidence.attestations
        ),
    )


def _passed(check: tuple[str, str, str]) -> Success:
    return Success("Pass", _metadata(check))


def _failed(check: tuple[str, str, str], message: str) -> Violation:
    return Violation(message, _metadata(check))


def _metadata(check: tuple[str, str, str]) -> dict[str, str]:
    code, title, description = check
    return {"code": code, "title": title, "description": description}
