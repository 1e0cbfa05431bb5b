"""What the engine says when it fails, as our exceptions."""

from __future__ import annotations

from typing import Final

from conforma.errors import (
    CompileFailed,
    ConformaError,
    EngineError,
    EvaluationFailed,
    PolicyError,
    Problem,
)
from conforma.policy.rego.frames import Frame

REMOVED_BUILTINS: Final = ("opa.runtime", "http.send", "net.lookup_ip_addr")

DEEPEST: Final = 100
"""Levels in which a rule's result may be nested. Reading and writing it takes a call for each."""


def too_deep(hint: str) -> EvaluationFailed:
    """The exception for a result that is nested more deeply than anybody could read."""
    return EvaluationFailed(
        f"a rule returns a value that is nested in more than {DEEPEST} levels", hint=hint
    )


def failure_of(frame: Frame, opa_version: str) -> ConformaError:
    """The exception for an error frame."""
    failure = frame.header["failure"]
    message = failure["message"]
    problems = tuple(
        Problem(p["file"], p["row"], p["column"], p["code"], p["message"])
        for p in failure.get("problems", ())
    )
    match failure["kind"]:
        case "compile":
            return CompileFailed(compile_message(message, opa_version), problems=problems)
        case "data":
            return PolicyError(message)
        case "evaluate":
            return EvaluationFailed(message)
        case "memory":
            return EngineError(message, hint="look for a rule that builds a very large value")
        case "time":
            return EngineError(message, hint="look for a rule that never comes to an end")
        case _:
            return EngineError(f"the policy engine failed: {message}")


def compile_message(details: str, opa_version: str) -> str:
    """Section 4.2 of the specification: advice around errors of the compiler."""
    codes = ("rego_type_error", "rego_parse_error", "rego_compile_error")
    if not details.startswith("load: ") or not any(code in details for code in codes):
        return details
    return (
        "policy compilation error: the policy references Rego built-in functions not available "
        f"in this version of Conforma CLI ({opa_version}).\n\n"
        "Upgrade Conforma CLI to a newer version that includes the required functions.\n\n"
        "If upgrading does not help, check for less common causes:\n"
        "  - Conforma CLI disables certain built-in functions for security "
        f"({', '.join(REMOVED_BUILTINS)}). Policies using these will not compile regardless of "
        "the CLI version\n"
        "  - The policy may use Rego syntax requiring a newer OPA version.\n"
        f"    Adjust the policy to target OPA {opa_version} or earlier\n\n"
        f"Details:\n  {details}"
    )
