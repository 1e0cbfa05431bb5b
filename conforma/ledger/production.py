"""Making verification summaries after a run: files, signatures, and where they go.

One for each component that was decided in this run. A component that was
spared because of an earlier summary gets none, or trust would renew itself.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from msgspec import Struct, field

from conforma import gojson
from conforma.errors import BadReference, ConformaError, InputError
from conforma.ledger.statement import envelope, statement
from conforma.oci.digest import Digest
from conforma.oci.reference import Reference
from conforma.report import as_vsa, component_vsa
from conforma.trust.private_key import PrivateKey
from conforma.validate.result import ComponentResult, Report

log = logging.getLogger(__name__)

_SNAPSHOT: Final = "application-snapshot"
_UNSAFE: Final = re.compile(r"[/\\\x00-\x1f\x7f]+")


class Receiver(Protocol):
    """A place that takes envelopes."""

    name: str
    keeps: str
    """What it makes of an envelope, for messages."""

    def upload(self, envelopes: Sequence[bytes]) -> None:
        """Store them. Raises ``ConformaError``."""


class Order(Struct, frozen=True):
    """What summaries to make; ``key`` is ``None`` for predicates, which are not signed.

    ``directory`` is ``None`` for a new temporary directory per component.
    """

    format: Literal["dsse", "predicate"]
    directory: Path | None
    policy_source: str
    conditions: Mapping[str, Any]
    key: PrivateKey | None
    receivers: Sequence[Receiver] = ()
    _taken: set[str] = field(default_factory=set)


def produce(report: Report, order: Order) -> tuple[Path, ...]:
    """Write a summary for each component, sign and hand them on; the files written.

    Problems are logged as errors: the verdict stands without its summary.
    """
    written: list[Path] = []
    envelopes: list[bytes] = []
    for result in report.components:
        if result.error is not None or result.skipped:
            continue
        made = _attempt(
            f"Failed to generate predicate for {result.image}",
            lambda result=result: _component(report, result, order, written),  # type: ignore[misc]
        )
        if made:
            envelopes.append(made)
    if order.key is None:
        return tuple(written)
    made = _attempt("Failed to process VSAs", lambda: _snapshot(report, order, written))
    if made:
        envelopes.append(made)
    if not order.receivers:
        log.error("[VSA] VSA files generated but not uploaded (no --vsa-upload backends specified)")
    for receiver in order.receivers:
        _attempt(
            f"[VSA] Failed to upload {receiver.keeps} to {receiver.name}",
            lambda receiver=receiver: receiver.upload(envelopes),  # type: ignore[misc]
        )
    return tuple(written)


def _component(
    report: Report, result: ComponentResult, order: Order, written: list[Path]
) -> bytes | None:
    predicate = component_vsa.predicate(report, result, order.policy_source, order.conditions)
    directory = order.directory or _new_directory("vsa-")
    path = directory / f"vsa-{_free_name(result.component.name, order)}.json"
    _write(path, gojson.encode(predicate, indent="  "), 0o600)
    written.append(path)
    if order.key is None:
        return None
    image = Reference.parse(result.image)
    if image.digest is None:
        raise BadReference(f"{result.image} has no digest, so there is nothing to make it about")
    content = envelope(statement(image.repository_name, image.digest, predicate), order.key)
    return _signed(path, content, written)


def _snapshot(report: Report, order: Order, written: list[Path]) -> bytes | None:
    if any(result.skipped for result in report.components):
        return None  # it would speak about components that this run did not look at
    assert order.key is not None
    predicate = as_vsa.predicate(report)
    directory = order.directory or _new_directory("snapshot-predicate-")
    path = directory / f"{_SNAPSHOT}-vsa.json"
    text = gojson.encode(predicate, indent="  ")
    _write(path, text, 0o600)
    written.append(path)
    made = statement(report.snapshot or _SNAPSHOT, Digest.of(text), predicate)
    return _signed(path, envelope(made, order.key), written)


def _signed(path: Path, content: bytes, written: list[Path]) -> bytes:
    target = path.with_name(f"{path.name}.intoto.jsonl")
    _write(target, content, 0o644)
    written.append(target)
    return content


def _free_name(name: str, order: Order) -> str:
    """The component's name as part of a file name that no other component has."""
    safe = _UNSAFE.sub("-", name).strip(".") or "unknown"
    candidate, number = safe, 1
    while candidate in order._taken:
        number += 1
        candidate = f"{safe}-{number}"
    order._taken.add(candidate)
    return candidate


def _new_directory(prefix: str) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as cause:
        raise InputError(
            f"cannot make a directory for summaries: {cause.strerror}",
            hint="--attestation-output-dir or TMPDIR names a place for them",
        ) from cause


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123
            file.write(content)
    except OSError as cause:
        raise InputError(f"{path}: {cause.strerror}") from cause


def _attempt(what: str, step: Callable[[], bytes | None]) -> bytes | None:
    try:
        return step()
    except ConformaError as error:
        log.error("%s: %s", what, error.message)
        return None


def output_directory(text: str) -> Path | None:
    """The directory of ``--attestation-output-dir``. Raises ``InputError`` (1.6)."""
    if not text:
        return None
    directory = Path(os.path.abspath(text))  # noqa: PTH100 - lexically, as the contract says
    for allowed in (Path("/tmp"), Path.cwd()):  # noqa: S108 - part of the contract
        if directory == allowed or directory.is_relative_to(allowed):
            return directory
    raise InputError(
        "invalid attestation output directory: attestation output directory must be under /tmp "
        f"or current working directory, got: {directory}"
    )
