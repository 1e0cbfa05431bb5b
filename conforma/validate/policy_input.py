"""The document that rules see as ``input``, built in one place.

Section 6 of the ``validate image`` specification. Its bytes are part of the
contract: order of keys, what is left out when empty, Go's JSON encoding. A
signed statement is taken over as it was signed, without being read and
written again; rules get the same values in a text that costs less to make.
Nothing here does I/O.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct, field

from conforma import gojson, yamljson
from conforma.errors import BadManifest, BadReference, InputError
from conforma.oci.reference import Reference
from conforma.policy.rego.inputs import Input, Shared
from conforma.trust.signature import Attestation, Signature
from conforma.validate.snapshot import Component, Snapshot

log = logging.getLogger(__name__)

BASE_NAME: Final = "org.opencontainers.image.base.name"
BASE_DIGEST: Final = "org.opencontainers.image.base.digest"
OLM_MANIFESTS: Final = "operators.operatorframework.io.bundle.manifests.v1"


def _folded(names: str) -> Mapping[str, str]:
    return {name.casefold(): name for name in names.split()}


# The members of an image configuration's "config" that rules get to see.
_CONFIG_MEMBERS: Final = _folded(
    "AttachStderr AttachStdin AttachStdout Cmd Healthcheck Domainname Entrypoint Env Hostname "
    "Image Labels OnBuild OpenStdin StdinOnce Tty User Volumes WorkingDir ExposedPorts "
    "ArgsEscaped NetworkDisabled MacAddress StopSignal Shell"
)
_HEALTHCHECK_MEMBERS: Final = _folded("Test Interval Timeout StartPeriod Retries")


class ParentImage(Struct, frozen=True):
    """The image another one was built on, as its annotations name it.

    ``text`` is their wording, a tag included, which is what rules see.
    """

    text: str
    reference: Reference

    @classmethod
    def of(cls, annotations: Mapping[str, str]) -> ParentImage | None:
        """The parent that the annotations of a manifest name, ``None`` if they name none."""
        text = annotations.get(BASE_NAME, "")
        if text and "@" not in text:
            digest = annotations.get(BASE_DIGEST, "")
            text = f"{text}@{digest}" if digest else ""
        if not text:
            return None
        try:
            return cls(text, Reference.parse(text))
        except BadReference as error:
            log.debug("unable to parse parent image ref: %s", error)
            return None


class ImageFacts(Struct, frozen=True):
    """What was read from the image itself.

    ``config`` and ``parent_config`` are the ``config`` members of image
    configurations, ``None`` if they could not be fetched. ``files`` maps paths
    to what they hold as JSON values.
    """

    config: Mapping[str, Any] | None = None
    parent: ParentImage | None = None
    parent_config: Mapping[str, Any] | None = None
    files: Mapping[str, Any] = field(default_factory=dict)


class PolicyInput(Struct, frozen=True):
    """The input document of one component, in parts that are JSON texts.

    ``attestations`` are statements as they were signed, each with the list of
    its signatures, empty if there is none to show. ``others`` is an object
    with the members that follow the snapshot.
    """

    attestations: tuple[tuple[bytes, bytes], ...]
    image: bytes
    snapshot: Shared
    others: bytes

    def text(self) -> bytes:
        """The document as section 6 has it: compact, without a newline."""
        snapshot = b',"snapshot":' + self.snapshot.text
        return b"".join(self._pieces(gojson.compact, snapshot))

    def for_rules(self) -> Input:
        """The same values for the engine, which shares the snapshot between components."""
        return Input(b"".join(self._pieces(bytes, b"")), {"snapshot": self.snapshot})

    def _pieces(self, statement: Callable[[bytes], bytes], snapshot: bytes) -> Iterator[bytes]:
        yield b'{"attestations":['
        for number, (raw, signatures) in enumerate(self.attestations):
            yield b',{"statement":' if number else b'{"statement":'
            yield statement(raw)
            if signatures:
                yield b',"signatures":'
                yield signatures
            yield b"}"
        yield b'],"image":'
        yield self.image
        yield snapshot
        yield b"," + self.others[1:]


def build(
    component: Component,
    reference: Reference,
    *,
    facts: ImageFacts,
    signatures: Iterable[Signature],
    attestations: Iterable[Attestation],
    snapshot: Shared,
    policy_spec: Mapping[str, Any],
) -> PolicyInput:
    """The input document for one component.

    ``reference`` is pinned; ``snapshot`` is what :func:`encoded` made of the
    expanded one, once for all components; ``policy_spec`` is the effective policy with
    pinned sources, in the order in which it is to appear.
    """
    others: dict[str, Any] = {"component_name": component.name} if component.name else {}
    others["policy_spec"] = policy_spec
    return PolicyInput(
        tuple(
            (
                one.statement.raw,
                gojson.encode(_signatures(one.signatures)) if one.signatures else b"",
            )
            for one in attestations
        ),
        gojson.encode(_image(component, reference, facts, signatures)),
        snapshot,
        gojson.encode(others),
    )


def encoded(snapshot: Snapshot) -> Shared:
    """The snapshot as it stands in every document of a run."""
    return Shared(gojson.encode(snapshot.as_dict()))


def shown_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """An image's ``config`` as rules see it: known members in fixed order, empty ones left out.

    Runtimes written in Go take member names in any case, so this does too.
    Raises ``BadManifest`` for a member that is there in two spellings, since
    which of them a runtime obeys, or whether it merges them, cannot be told.
    """
    shown = _members(config, _CONFIG_MEMBERS)
    healthcheck = shown.get("Healthcheck")
    if isinstance(healthcheck, Mapping):
        shown["Healthcheck"] = _members(healthcheck, _HEALTHCHECK_MEMBERS)
    return {name: gojson.sorted_maps(value) for name, value in shown.items()}


def manifest_directory(config: Mapping[str, Any]) -> str | None:
    """Where an operator bundle says its manifests are; ``None`` for any other image."""
    labels = shown_config(config).get("Labels")
    path = labels.get(OLM_MANIFESTS) if isinstance(labels, Mapping) else None
    return posixpath.normpath(path) if isinstance(path, str) else None


def parsed_files(contents: Mapping[str, bytes]) -> dict[str, Any]:
    """The files that hold YAML or JSON, parsed; others are left out with a debug message."""
    parsed: dict[str, Any] = {}
    for path, content in contents.items():
        try:
            parsed[posixpath.normpath(path)] = yamljson.parse(content, duplicate_keys="last")
        except InputError as error:
            log.debug("ignoring %s, neither JSON nor YAML: %s", path, error)
    return parsed


def _signatures(signatures: Iterable[Signature]) -> list[dict[str, Any]]:
    documents = []
    for signature in signatures:
        document = signature.as_dict()
        if "metadata" in document:
            document["metadata"] = gojson.sorted_maps(document["metadata"])
        documents.append(document)
    return documents


def _image(
    component: Component,
    reference: Reference,
    facts: ImageFacts,
    signatures: Iterable[Signature],
) -> dict[str, Any]:
    document: dict[str, Any] = {"ref": str(reference)}
    if listed := _signatures(signatures):
        document["signatures"] = listed
    if facts.config is not None:
        document["config"] = shown_config(facts.config)
    if facts.parent is not None:
        document["parent"] = {"ref": facts.parent.text}
        if facts.parent_config is not None:
            document["parent"]["config"] = shown_config(facts.parent_config)
    if facts.files:
        document["files"] = gojson.sorted_maps(facts.files)
    document["source"] = component.source
    return document


def _members(document: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in document.items():
        folded = name.casefold()
        if folded in names and folded in given:
            raise BadManifest(f"image config: the member {name!r} stands there in two spellings")
        given[folded] = value
    return {name: given[folded] for folded, name in names.items() if given.get(folded)}
