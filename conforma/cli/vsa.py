"""The ``--vsa`` flags of ``validate image``: what they ask for, checked before any image is.

Specification 1.6, and sections 9 and 10 of that of the other commands.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from conforma.cli.outcome import Collected
from conforma.errors import BadReference, ConformaError, InputError, Interrupted
from conforma.oci.reference import Reference
from conforma.validate.result import ComponentResult, Report
from conforma.validate.snapshot import Component

if TYPE_CHECKING:
    from conforma.cancellation import Cancellation
    from conforma.cli.options import ImageOptions
    from conforma.ledger.earlier import Earlier
    from conforma.ledger.production import Order
    from conforma.ledger.shelves import Backend
    from conforma.oci.registry import Registry
    from conforma.policy.kube import Kubernetes
    from conforma.trust.keys import PublicKey
    from conforma.trust.private_key import PrivateKey

log = logging.getLogger(__name__)

_FORMATS: Final = ("dsse", "predicate")


class Summaries(Struct, frozen=True):
    """What the flags ask for: which summaries to make, and which earlier ones may count."""

    backends: tuple[Backend, ...] = ()
    unusable: tuple[str, ...] = ()
    """Why each of the other places of ``--vsa-upload`` cannot be used."""
    signing_key: PrivateKey | None = None
    public_key: PublicKey | None = None


def read(
    options: ImageOptions, cluster: Kubernetes, load_key: Callable[[str], PublicKey]
) -> tuple[Summaries, list[ConformaError]]:
    """What the flags mean, and everything that is wrong with them."""
    problems = Collected()
    with problems:
        _check_format(options)
    with problems:
        if options.vsa_upload and options.vsa_expiration > 0 and not options.vsa_public_key:
            raise InputError(
                "--vsa-public-key required when --vsa-upload is set with --vsa-expiration > 0"
            )
    signing_key: PrivateKey | None = None
    if options.vsa and options.attestation_format == "dsse" and options.vsa_signing_key:
        with problems:
            signing_key = _signing_key(options.vsa_signing_key, cluster)
    if options.vsa and options.attestation_output_dir:
        from conforma.ledger.production import output_directory

        with problems:
            output_directory(options.attestation_output_dir)
    public_key: PublicKey | None = None
    if options.vsa_public_key and options.vsa_upload:
        with problems:
            public_key = load_key(options.vsa_public_key)
    backends, unusable = _backends(options)
    if signing_key is None:  # else the upload tells
        for reason in unusable:
            log.warning("%s", reason)
    return Summaries(backends, unusable, signing_key, public_key), problems.errors


def conditions(options: ImageOptions) -> dict[str, Any]:
    """How this run differs from a usual one in what its verdicts mean."""
    found: dict[str, Any] = {}
    if options.skip_image_sig_check:
        found["skipImageSigCheck"] = True
    if options.skip_att_sig_check:
        found["skipAttSigCheck"] = True
    if options.ignore_rekor:
        found["ignoreRekor"] = True
    if options.filter_type != "include-exclude":
        found["filterType"] = options.filter_type
    if options.effective_time != "now":
        found["effectiveTime"] = options.effective_time
    return found


def order(
    summaries: Summaries, options: ImageOptions, stack: ExitStack, cancellation: Cancellation
) -> Order | None:
    """Which summaries to make after the run."""
    if not options.vsa:
        return None
    from conforma.ledger.production import Order, output_directory
    from conforma.ledger.shelves import NoShelf

    dsse = options.attestation_format == "dsse"
    return Order(
        format="dsse" if dsse else "predicate",
        directory=output_directory(options.attestation_output_dir),
        policy_source=options.policy or "",
        conditions=conditions(options),
        key=summaries.signing_key,
        receivers=[
            *(
                _shelf(backend, stack, cancellation, summaries.signing_key)
                for backend in summaries.backends
            ),
            *(NoShelf(reason) for reason in summaries.unusable),
        ]
        if dsse
        else [],
    )


def make(report: Report, order: Order) -> None:
    """Make the summaries, after the report was written."""
    from conforma.ledger.production import produce

    produce(report, order)


def earlier(
    summaries: Summaries,
    options: ImageOptions,
    policy: Mapping[str, Any],
    key: str,
    stack: ExitStack,
    cancellation: Cancellation,
) -> Earlier | None:
    """Where to look for verdicts that may stand; ``None`` if none may."""
    if summaries.public_key is None or options.vsa_expiration <= 0 or not summaries.backends:
        return None
    from conforma.ledger.earlier import Earlier, Wanted

    wanted = Wanted(
        policy, key, conditions(options), summaries.public_key, float(options.vsa_expiration)
    )
    if not policy.get("sources"):
        return None
    if unpinned := wanted.unpinned:
        log.warning(
            "existing VSAs are not used: the content of policy source %s may change under its name",
            unpinned[0],
        )
        return None
    return Earlier(wanted, [_shelf(backend, stack, cancellation) for backend in summaries.backends])


def spared(component: Component, earlier: Earlier, registry: Registry) -> ComponentResult | None:
    """The result of a component that need not be validated again; ``None`` if it must be."""
    try:
        given = Reference.parse(component.container_image)
        image = given if given.digest is not None else registry.resolve(given)
    except Interrupted:
        raise
    except (BadReference, ConformaError) as error:
        log.debug("%s: %s", component.container_image, error)
        return None  # validation finds the same, and says it in its place
    accepted = earlier.find(image, component.name)
    if accepted is None:
        return None
    return ComponentResult(
        component,
        component.container_image,
        skipped=f"passed at {accepted.moment:%Y-%m-%dT%H:%M:%SZ} according to {accepted.where}",
    )


def _check_format(options: ImageOptions) -> None:
    if not options.vsa:
        return
    if options.attestation_format not in _FORMATS:
        raise InputError(
            f"invalid --attestation-format: {options.attestation_format} "
            f"(valid: {', '.join(_FORMATS)})"
        )
    if options.attestation_format == "dsse" and not options.vsa_signing_key:
        raise InputError("--vsa-signing-key required for --attestation-format=dsse")
    if options.attestation_format == "predicate" and options.vsa_signing_key:
        log.warning("--vsa-signing-key is ignored for --attestation-format=predicate")


def _backends(options: ImageOptions) -> tuple[tuple[Backend, ...], tuple[str, ...]]:
    """The places of ``--vsa-upload``, and why others are none."""
    if not options.vsa_upload:
        return (), ()
    from conforma.ledger.shelves import Backend

    found: list[Backend] = []
    unusable: list[str] = []
    for text in options.vsa_upload:
        try:
            found.append(Backend.parse(text))
        except InputError as error:
            unusable.append(error.message)
    return tuple(found), tuple(unusable)


def _shelf(
    backend: Backend, stack: ExitStack, cancellation: Cancellation, signer: PrivateKey | None = None
) -> Any:
    from conforma.ledger.shelves import LedgerShelf, LocalShelf

    if backend.kind == "ledger":
        return LedgerShelf(backend, stack)
    if backend.kind == "rekor":
        from conforma.ledger.rekor_shelf import RekorShelf

        return RekorShelf(backend, stack, cancellation, signer)
    return LocalShelf(backend)


def _signing_key(text: str, cluster: Kubernetes) -> PrivateKey:
    from conforma.trust.private_key import PASSWORD, PrivateKey

    if not text.startswith("k8s://"):
        return PrivateKey.load(text, os.environ.get(PASSWORD, "").encode())
    parts = text.removeprefix("k8s://").split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise InputError(
            f'invalid k8s key reference format "{text}", expected k8s://namespace/secret-name '
            "or k8s://namespace/secret-name/key-field"
        )
    secret = cluster.secret(parts[0], parts[1])
    name = parts[2] if len(parts) == 3 else "cosign.key"
    if name not in secret:
        raise InputError(
            f'resolve private key "{text}": key field "{name}" not found in secret {parts[0]}/{parts[1]}'
        )
    return PrivateKey.parse(secret[name], text, secret.get("cosign.password", b""))
