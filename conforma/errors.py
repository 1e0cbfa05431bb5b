"""Everything that can go wrong and can be explained, on one screen.

::

    ConformaError              message, optional hint, exit status
      InputError               what the user gave cannot be used            exit 1
        BadReference  BadDigest  BadSnapshot  BadPolicyConfig
      RegistryError            names the reference; secrets are redacted    exit 3
        NotFound  AccessDenied  RateLimited  RegistryUnreachable  BadResponse
      IntegrityError           bytes differ from their promise              exit 3
        DigestMismatch  SizeMismatch  TooLarge  BadManifest  BadArchive  UnsafeArchive
      CacheError                                                            exit 3
        CacheUnusable
      DestinationUnusable      what is mirrored cannot be written there     exit 3
      TrustError               the evidence does not hold: a finding        exit 1
        NoSignature  NoMatchingSignature  SignatureMismatch
        IdentityMismatch  NotInLog  BadEvidence
      TrustRootUnavailable     what to trust could not be learnt          exit 3
      LogUnavailable           a transparency log did not answer          exit 3
      PolicyError                                                           exit 1
        SourceUnavailable (exit 3)  CompileFailed  EvaluationFailed
      LedgerError              the ledger could not be written or believed  exit 3
        LedgerBusy  StaleRight  LedgerUnverified
        OperationRefused       this one operation is no good                exit 1
      EngineError              the policy engine died or broke its limits   exit 3
      ResourcesExhausted       memory, threads, files or disk space ran out exit 3
      Interrupted              Ctrl-C or SIGTERM                            exit 130
        DeadlineExceeded       ``--timeout`` ran out                        exit 3

The exit status answers one question: 1 means that the image or the input is
at fault, 3 that the surroundings kept us from deciding. A bug is no
``ConformaError`` and shows its traceback.
"""

from __future__ import annotations

from typing import NamedTuple


class ConformaError(Exception):
    """Base of every explainable failure.

    ``message`` says what failed, on which reference or file, and why.
    ``hint``, if there is one, says what to try.
    """

    exit_status: int = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class InputError(ConformaError):
    """What the user gave cannot be used."""


class BadReference(InputError):
    """Text that is no image reference."""


class BadDigest(InputError):
    """Text that is no content digest."""


class BadSnapshot(InputError):
    """A snapshot that cannot be read or holds nothing to validate."""


class BadPolicyConfig(InputError):
    """A policy configuration that cannot be read or contradicts its schema."""


class RegistryError(ConformaError):
    """A registry did not give what was asked for; the message names the reference."""

    exit_status = 3


class NotFound(RegistryError):
    """The registry answered that it does not have it."""


class AccessDenied(RegistryError):
    """The registry wants other credentials than it was shown."""


class RateLimited(RegistryError):
    """The registry asked for fewer requests and we ran out of patience."""


class RegistryUnreachable(RegistryError):
    """No usable answer: name, connection, TLS, time-out, or 5xx after retries."""


class BadResponse(RegistryError):
    """An answer that contradicts the distribution specification."""


class IntegrityError(ConformaError):
    """Bytes differ from their promise."""

    exit_status = 3


class DigestMismatch(IntegrityError):
    """The bytes hash to another digest than the one they were asked for by."""


class SizeMismatch(IntegrityError):
    """More or fewer bytes than the descriptor declares."""


class TooLarge(IntegrityError):
    """Content over a limit that protects memory or disk."""


class BadArchive(IntegrityError):
    """Content that is not the archive or compressed stream it claims to be."""


class BadManifest(IntegrityError):
    """Bytes from a registry that are no manifest, index or image configuration."""


class UnsafeArchive(IntegrityError):
    """An archive member that would leave the directory it belongs to."""


class CacheError(ConformaError):
    """The cache directory, not the image, is at fault."""

    exit_status = 3


class CacheUnusable(CacheError):
    """The directory cannot serve as a cache; the run goes on without one."""


class DestinationUnusable(ConformaError):
    """The disk at the destination of a mirror does not take what is written."""

    exit_status = 3


class TrustError(ConformaError):
    """A signature or attestation that does not hold; becomes a violation."""


class NoSignature(TrustError):
    """Nothing is attached to the image."""


class NoMatchingSignature(TrustError):
    """Signatures or attestations exist, none of them verifies."""


class SignatureMismatch(TrustError):
    """One signature does not verify with the key."""


class IdentityMismatch(TrustError):
    """A certificate was issued to somebody else."""


class NotInLog(TrustError):
    """No acceptable transparency-log entry."""


class BadEvidence(TrustError):
    """An attached signature or attestation that is malformed."""


class TrustRootUnavailable(ConformaError):
    """Log keys and certificate authorities could not be learnt, or are out of date."""

    exit_status = 3


class LogUnavailable(ConformaError):
    """Whether a transparency log knows a signature could not be learnt."""

    exit_status = 3


class PolicyError(ConformaError):
    """The policy cannot be used."""


class SourceUnavailable(PolicyError):
    """A policy or data source could not be fetched."""

    exit_status = 3


class Problem(NamedTuple):
    """One fault in a policy file; rows and columns count from 1.

    No Struct: every command loads this module, and most need nothing else of msgspec.
    """

    file: str
    row: int
    column: int
    code: str
    message: str


class CompileFailed(PolicyError):
    """The policy does not compile; ``problems`` has file, row and column of each fault."""

    def __init__(
        self, message: str, *, hint: str | None = None, problems: tuple[Problem, ...] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class EvaluationFailed(PolicyError):
    """A rule could not be evaluated."""


class LedgerError(ConformaError):
    """The ledger's directory, its key or its clock does not serve; what is queued stays queued."""

    exit_status = 3


class LedgerBusy(LedgerError):
    """The queue is full, or nobody committed in time; ``retry_after`` is in seconds."""

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class StaleRight(LedgerError):
    """Somebody else took the commit right meanwhile; nothing of ours was published."""


class LedgerUnverified(LedgerError):
    """Metadata or content of a ledger that does not verify, or is out of date."""


class OperationRefused(LedgerError):
    """One operation cannot be published; those beside it were not affected."""

    exit_status = 1


class EngineError(ConformaError):
    """The policy engine could not be started, died or exceeded a limit."""

    exit_status = 3


class ResourcesExhausted(ConformaError):
    """The machine had too little of something, or failed in another way."""

    exit_status = 3


class Interrupted(ConformaError):
    """The user asked the run to stop."""

    exit_status = 130


class DeadlineExceeded(Interrupted):
    """The run took longer than ``--timeout`` allows."""

    exit_status = 3
