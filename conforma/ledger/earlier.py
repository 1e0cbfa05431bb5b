"""Whether an earlier verdict may stand for validating again; in doubt, it may not.

A summary counts if it is about this digest, was made with this pinned policy,
key and conditions, carries a signature by the given key, passed, is young
enough, and nothing that depends on the date has come into effect since.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from msgspec import Struct, field

from conforma import gojson
from conforma.errors import BadEvidence, ConformaError, Interrupted, SignatureMismatch
from conforma.ledger.statement import Summary, fingerprint
from conforma.oci.digest import Digest
from conforma.oci.reference import Reference
from conforma.policy.timestamps import parse_moment
from conforma.trust.keys import PublicKey

log = logging.getLogger(__name__)

#: A git source at a commit, or an image at a digest (validate-image.md 3.3).
_PINNED: Final = re.compile(r".*(?:\?ref=(?:[0-9a-f]{40}|[0-9a-f]{64})|@sha256:[0-9a-f]{64})")
#: Exceptions that look at more than the digest.
_ABOUT_NAMES: Final = ("componentNames", "imageRef", "imageUrl")
_SKEW: Final = timedelta(minutes=5)


class Shelf(Protocol):
    """A place where summaries are kept."""

    name: str

    def summaries(self, digest: Digest, policy: str) -> Sequence[bytes]:
        """What it has about an image; ``policy`` narrows it down if it can.

        Raises ``ConformaError`` if that could not be learnt.
        """


class Wanted(Struct, frozen=True):
    """What a summary must have been made with; ``oldest`` is the greatest age in seconds."""

    policy: Mapping[str, Any]
    key: str
    conditions: Mapping[str, Any]
    signer: PublicKey
    oldest: float
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def fingerprint(self) -> str:
        """Of policy and conditions, as a statement that was read would have it."""
        return fingerprint(json.loads(gojson.dumps(self.policy)), self.key, dict(self.conditions))

    @property
    def unpinned(self) -> list[str]:
        """The sources whose content may change under their name."""
        return [url for url in _urls(self.policy) if not _PINNED.fullmatch(url)]


class Accepted(Struct, frozen=True):
    """A verdict that stands: where it was found and when it was reached."""

    where: str
    moment: datetime


class Earlier:
    """Looks for earlier verdicts, on all shelves. Safe to share between threads."""

    def __init__(self, wanted: Wanted, shelves: Sequence[Shelf]) -> None:
        self._wanted = wanted
        self._fingerprint = wanted.fingerprint
        self._shelves = shelves

    def find(self, image: Reference, component: str) -> Accepted | None:
        """A verdict that may stand for validating a pinned image; why others may not is logged.

        Raises ``Interrupted`` if the run is to stop.
        """
        assert image.digest is not None
        for shelf in self._shelves:
            try:
                return self._judge(shelf, image.digest, image, component)
            except Doubt as doubt:
                log.log(
                    logging.WARNING if doubt.surprising else logging.DEBUG,
                    "Failed to validate existing VSA for image %s: %s: %s",
                    image,
                    shelf.name,
                    doubt,
                )
            except Interrupted:
                raise
            except ConformaError as error:
                log.warning(
                    "Failed to validate existing VSA for image %s: failed to check existing VSA: %s",
                    image,
                    error.message,
                )
        return None

    def _judge(self, shelf: Shelf, digest: Digest, image: Reference, component: str) -> Accepted:
        candidates: list[tuple[datetime, Summary]] = []
        doubt = Doubt("there is no summary of this image")
        for content in shelf.summaries(digest, self._fingerprint):
            try:
                summary = self._read(content, digest)
            except Doubt as found:
                doubt = found
                continue
            assert summary.moment is not None
            candidates.append((summary.moment, summary))
        if not candidates:
            raise doubt
        # The last word counts: a failure after a pass means validating again.
        moment, summary = max(candidates, key=lambda pair: (pair[0], not pair[1].passed))
        self._check(summary, moment, image, component)
        return Accepted(shelf.name, moment)

    def _read(self, content: bytes, digest: Digest) -> Summary:
        """A summary that is authentic and about what was asked for."""
        try:
            summary = Summary.parse(content)
        except BadEvidence as cause:
            raise Doubt(f"a summary cannot be read: {cause.message}", surprising=True) from cause
        if summary.envelope is None or not summary.envelope.signatures:
            raise Doubt("the summary is not signed")
        if not any(
            _verifies(self._wanted.signer, summary, s.value) for s in summary.envelope.signatures
        ):
            raise Doubt(
                "VSA signature verification failed: no signature by the given key", surprising=True
            )
        if summary.digest != digest:
            raise Doubt(f"the summary is about {summary.digest}", surprising=True)
        if summary.policy != self._fingerprint:
            raise Doubt("the summary was made with another policy, key or conditions")
        if summary.moment is None:
            raise Doubt("the summary has no timestamp")
        return summary

    def _check(self, summary: Summary, moment: datetime, image: Reference, component: str) -> None:
        wanted, predicate = self._wanted, summary.predicate
        if not summary.passed:
            raise Doubt(f"VSA predicate status is '{predicate.get('status')}' (not 'passed')")
        if moment > wanted.now + _SKEW:
            raise Doubt(f"it is dated {moment:%Y-%m-%dT%H:%M:%SZ}, in the future", surprising=True)
        if wanted.now - moment > timedelta(seconds=wanted.oldest):
            days = -(-(wanted.now - moment) // timedelta(days=1))
            raise Doubt(f"VSA expired {days} day(s) ago")
        if (text := predicate.get("currentUntil")) is not None:
            until = parse_moment(text) if isinstance(text, str) else None
            if until is None or until <= wanted.now:
                raise Doubt("a rule it warned about is in effect by now")
        for criterion in _volatile(wanted.policy):
            for name in ("effectiveOn", "effectiveUntil"):
                date = parse_moment(criterion.get(name, ""))
                if criterion.get(name) and (date is None or moment < date <= wanted.now):
                    raise Doubt(f"an exception of the policy began or ended on {criterion[name]}")
            if any(criterion.get(name) for name in _ABOUT_NAMES) and not (
                _component_name(predicate) == component and summary.name == image.repository_name
            ):
                raise Doubt("exceptions of the policy depend on names that differ")


class Doubt(Exception):
    """Why a summary does not spare validation; ``surprising`` if somebody should look into it."""

    def __init__(self, reason: str, *, surprising: bool = False) -> None:
        super().__init__(reason)
        self.surprising = surprising


def _verifies(key: PublicKey, summary: Summary, signature: bytes) -> bool:
    assert summary.envelope is not None
    try:
        key.verify(signature, summary.envelope.signed_bytes)
    except SignatureMismatch:
        return False
    return True


def _component_name(predicate: Mapping[str, Any]) -> object:
    summary = predicate.get("summary")
    component = summary.get("component") if isinstance(summary, dict) else None
    return component.get("name") if isinstance(component, dict) else None


def _urls(policy: Mapping[str, Any]) -> Iterator[str]:
    for group in policy.get("sources") or ():
        yield from group.get("policy") or ()
        yield from group.get("data") or ()


def _volatile(policy: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for group in policy.get("sources") or ():
        for criteria in (group.get("volatileConfig") or {}).values():
            yield from criteria or ()
