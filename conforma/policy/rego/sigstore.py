"""``ec.sigstore.*``: signatures and attestations of other images, checked by rules.

Their answers are values that say whether it worked and why not
(rego-builtins.md, sections 5.3 to 5.6); only what could not be learnt at all,
an outage, is raised.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any, Final

from msgspec import Struct

from conforma.cancellation import Cancellation
from conforma.errors import BadEvidence, BadReference, InputError, TrustError
from conforma.oci.flights import Flights
from conforma.oci.memory import Memory
from conforma.oci.reference import Reference
from conforma.schema_errors import json_type
from conforma.trust.identity import Identity
from conforma.trust.keys import PublicKey
from conforma.trust.root import by_id, log_key
from conforma.trust.trust_policy import TrustPolicy
from conforma.trust.verify import Verifier

_REMEMBERED: Final = 32 << 20
_ONE_DIGEST: Final = (
    "a digest must contain exactly one '@' separator (e.g. registry/repository@digest) saw: "
)


class Options(Struct, frozen=True):
    """The options object; texts of another type count as missing, other keys are ignored."""

    ignore_rekor: bool = False
    certificate_identity: str = ""
    certificate_identity_regexp: str = ""
    certificate_oidc_issuer: str = ""
    certificate_oidc_issuer_regexp: str = ""
    public_key: str = ""
    rekor_url: str = ""
    rekor_public_key: str = ""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Options:
        """Read an options object."""
        texts = {
            name: value
            for name in cls.__struct_fields__
            if name != "ignore_rekor" and isinstance(value := document.get(name), str)
        }
        return cls(ignore_rekor=document.get("ignore_rekor") is True, **texts)


class Signatures:
    """The two functions, with what they learnt in this run. Thread safe.

    ``verifier`` is that of the run; options that ask for the same use it.
    ``load_key`` reads a key reference and raises ``InputError``.
    """

    def __init__(
        self,
        verifier: Verifier,
        load_key: Callable[[str], PublicKey],
        cancellation: Cancellation,
    ) -> None:
        self._own = verifier
        self._load_key = load_key
        self._verifiers: Memory[Verifier] = Memory(1000)
        self._verifier_flights: Flights[Verifier] = Flights(cancellation)
        self._answers: Memory[dict[str, Any]] = Memory(_REMEMBERED)
        self._answer_flights: Flights[dict[str, Any]] = Flights(cancellation)

    def verify_image(self, reference: object = None, options: object = None) -> dict[str, Any]:
        """``ec.sigstore.verify_image(ref, opts)``."""

        def work(verifier: Verifier, image: Reference) -> list[Any]:
            return [found.as_builtin_result() for found in verifier.image_signatures(image)]

        return self._answer(
            ("image", "signatures"), "image signature", "signature", work, reference, options
        )

    def verify_attestation(
        self, reference: object = None, options: object = None
    ) -> dict[str, Any]:
        """``ec.sigstore.verify_attestation(ref, opts)``."""

        def work(verifier: Verifier, image: Reference) -> list[Any]:
            return [
                {
                    "statement": json.loads(found.statement.raw),
                    "signatures": [one.as_builtin_result() for one in found.signatures],
                }
                for found in verifier.attestations(image)
            ]

        return self._answer(
            ("attestation", "attestations"),
            "image attestation signature",
            "attestation",
            work,
            reference,
            options,
        )

    def _answer(
        self,
        names: tuple[str, str],
        what: str,
        item: str,
        work: Callable[[Verifier, Reference], list[Any]],
        reference: object,
        options: object,
    ) -> dict[str, Any]:
        function, member = names

        def ask() -> dict[str, Any]:
            try:
                image, verifier = self._arguments(reference, options)
            except InputError as error:
                return {"success": False, "errors": [error.message], member: []}
            try:
                return {"success": True, "errors": [], member: work(verifier, image)}
            except BadEvidence as error:
                reason = f"parsing {item}: {error.message}"
            except TrustError as error:
                reason = f"verify {what}: {error.message}"
            return {"success": False, "errors": [reason], member: []}

        key = (function, json.dumps([reference, options], sort_keys=True))
        found = self._answers.get(key)
        if found is None:
            found = self._answer_flights.run(key, ask)
            self._answers.put(key, found, len(json.dumps(found)))
        return found

    def _arguments(self, reference: object, options: object) -> tuple[Reference, Verifier]:
        """What the arguments stand for. Raises ``InputError`` with the text of section 5.6."""
        if not isinstance(reference, str):
            raise InputError(
                f"ref parameter: operand 0 must be string but got {json_type(reference)}"
            )
        if reference.count("@") != 1:
            raise InputError(f"new digest: {_ONE_DIGEST}{reference}")
        try:
            image = Reference.parse(reference)
        except BadReference as cause:
            raise InputError(f"new digest: {cause.message}") from cause
        if not isinstance(options, dict):
            raise InputError(
                "opts parameter: opts parameter: operand 1 must be object but got "
                f"{json_type(options)}"
            )
        wanted = Options.parse(options)
        verifier = self._verifiers.get(wanted)
        if verifier is None:
            key: Hashable = wanted
            verifier = self._verifier_flights.run(key, lambda: self._verifier(wanted))
            self._verifiers.put(wanted, verifier, 1)
        return image, verifier

    def _verifier(self, options: Options) -> Verifier:
        policy = self._policy(options)
        if options.rekor_public_key:
            try:
                keys = PublicKey(options.rekor_public_key).keys
            except InputError as cause:
                raise InputError(
                    f"opts parameter: adding rekor public key: {cause.message}"
                ) from cause
            logs = by_id(log_key(key) for key in keys)
            return self._own.for_policy(policy, lambda root: replace(root, logs=logs))
        if policy == self._own.policy:
            return self._own
        return self._own.for_policy(policy)

    def _policy(self, options: Options) -> TrustPolicy:
        identity = Identity(
            issuer=options.certificate_oidc_issuer,
            subject=options.certificate_identity,
            issuer_regexp=options.certificate_oidc_issuer_regexp,
            subject_regexp=options.certificate_identity_regexp,
        )
        try:
            key = self._load_key(options.public_key) if options.public_key else None
            policy = TrustPolicy(
                key, None if key else identity, options.ignore_rekor, options.rekor_url
            )
            policy.check_usable()
        except InputError as cause:
            raise InputError(f"opts parameter: new policy: {cause.message}") from cause
        return policy
