"""The functions that rules call to look at registries: ``ec.oci.*``, ``ec.sigstore.*`` and ours.

"It is not there" is undefined in Rego. "It could not be found out" ends the
evaluation with the original error: the Go tool answers undefined to both, and
an outage then reads as a violation, or worse, as nothing to complain about.
Content that is no JSON or no archive is undefined as well, but an image whose
manifest, configuration or layers cannot be read is not: rules that look for
something forbidden would not find it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import asdict

from conforma import yamljson
from conforma.cache.filters import InDirectories, TreeFilter
from conforma.cache.images import ImageReader
from conforma.cancellation import Cancellation
from conforma.errors import BadArchive, BadReference, InputError, NotFound
from conforma.oci.flights import Flights
from conforma.oci.manifest import Manifest
from conforma.oci.memory import Memory
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.policy.rego import shapes
from conforma.policy.rego.engine import Builtin
from conforma.policy.rego.frames import Undefined
from conforma.trust.keys import PublicKey
from conforma.trust.verify import Verifier

if TYPE_CHECKING:
    from conforma.policy.rego.sigstore import Signatures

log = logging.getLogger("conforma.rego")

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_COSIGN_SUFFIXES: Final = ("sig", "att", "sbom")
_REMEMBERED: Final = 16 << 20
_VALUES: Final = 4 << 20
_PARSED: Final = 10
"""Room that a text takes with what was parsed of it, in lengths of the text, about."""


def builtins_for(
    registry: Registry,
    images: ImageReader,
    verifier: Verifier,
    load_key: Callable[[str], PublicKey],
    cancellation: Cancellation,
) -> Mapping[str, Builtin]:
    """The table of functions for one run; safe to share between threads."""
    oci = _Oci(registry, images, cancellation)

    @cache
    def signatures() -> Signatures:
        from conforma.policy.rego.sigstore import Signatures

        return Signatures(verifier, load_key, cancellation)

    table: dict[str, Builtin] = {
        "ec.oci.blob": oci.blob,
        "ec.oci.parsed_blob": oci.parsed_blob,
        "ec.oci.blob_files": oci.blob_files,
        "ec.oci.image_files": oci.image_files,
        "ec.oci.descriptor": oci.descriptor,
        "ec.oci.image_manifest": oci.image_manifest,
        "ec.oci.image_index": oci.image_index,
        "ec.oci.image_tag_refs": oci.image_tag_refs,
        "ec.oci.image_referrers": oci.image_referrers,
        "conforma.oci.image_tree": oci.image_tree,
    }
    return {
        **{name: _absence_is_undefined(name, function) for name, function in table.items()},
        "ec.oci.image_manifests": oci.image_manifests,
        "ec.sigstore.verify_image": lambda *given: signatures().verify_image(*given),
        "ec.sigstore.verify_attestation": lambda *given: signatures().verify_attestation(*given),
    }


class _Oci:
    def __init__(self, registry: Registry, images: ImageReader, cancellation: Cancellation) -> None:
        self._registry = registry
        self._images = images
        self._cancellation = cancellation
        self._tag_refs: Memory[list[str]] = Memory(_REMEMBERED)
        self._values: Memory[tuple[Any]] = Memory(_VALUES)
        self._tag_ref_flights: Flights[list[str]] = Flights(cancellation)

    def blob(self, ref: str) -> Any:
        content = self._images.blob_bytes(_digest_reference(ref))
        if content.startswith((_GZIP, _ZSTD)):
            # The Go tool hashes what it unpacked, so compressed content never matches.
            _complain("ec.oci.blob", ref, "computed digest does not match expected digest")
            return Undefined
        return content

    def parsed_blob(self, ref: str) -> Any:
        content = self.blob(ref)
        if content is Undefined:
            return Undefined
        try:
            return json.loads(content, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            _complain("ec.oci.parsed_blob", ref, str(error))
            return Undefined

    def blob_files(self, ref: str, paths: Iterable[str]) -> Any:
        reference = _digest_reference(ref)
        try:
            return self._parsed(self._images.blob_files(reference, frozenset(paths)))
        except BadArchive as error:
            _complain("ec.oci.blob_files", ref, error.message)
            return Undefined

    def image_files(self, ref: str, paths: Iterable[str]) -> Any:
        reference = _digest_reference(ref)
        directories = tuple(paths)
        if not directories:
            self._images.manifest(reference)
            return None  # nothing was asked for; null is what rules know
        wanted = InDirectories(directories)
        return self._parsed(self._images.files(reference, wanted, self._cancellation))

    def image_tree(self, ref: str, filter: Mapping[str, Any]) -> Any:
        wanted = TreeFilter.parse(filter)
        entries = self._images.tree(_digest_reference(ref), wanted, self._cancellation)
        return [asdict(entry) for entry in entries]

    def descriptor(self, ref: str) -> Any:
        return shapes.head(self._registry.head(self._resolved(ref)))

    def image_manifest(self, ref: str) -> Any:
        _, manifest = self._images.manifest(self._resolved(ref))
        return shapes.manifest(manifest)

    def image_manifests(self, refs: Iterable[str]) -> Any:
        """References that name nothing are left out; an outage ends the evaluation."""
        wanted = sorted(set(refs))
        if not wanted:
            return {}
        fetch = _absence_is_undefined(
            "ec.oci.image_manifests", self.image_manifest, level=logging.WARNING
        )
        at_once = min(len(wanted), 4 * (os.cpu_count() or 1))
        with ThreadPoolExecutor(at_once, thread_name_prefix="manifests") as pool:
            try:
                found = dict(zip(wanted, pool.map(fetch, wanted), strict=True))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return {ref: manifest for ref, manifest in found.items() if manifest is not Undefined}

    def image_index(self, ref: str) -> Any:
        found = self._registry.manifest(self._resolved(ref))
        if isinstance(found, Manifest):
            _complain("ec.oci.image_index", ref, f"{found.media_type} is no index")
            return Undefined
        return shapes.index(found)

    def image_tag_refs(self, ref: str) -> Any:
        pinned = self._resolved(ref)
        found = self._tag_refs.get(pinned)
        if found is None:
            found = self._tag_ref_flights.run(pinned, lambda: list(self._existing(pinned)))
            self._tag_refs.put(pinned, found, 1 + sum(map(len, found)))
        return found

    def image_referrers(self, ref: str) -> Any:
        pinned = self._resolved(ref)
        return [shapes.referrer(pinned, found) for found in self._registry.referrers(pinned)]

    def _existing(self, pinned: Reference) -> Iterable[str]:
        digest = pinned.digest
        assert digest is not None
        for suffix in _COSIGN_SUFFIXES:
            tagged = pinned.with_tag(f"{digest.algorithm}-{digest.hex}.{suffix}")
            try:
                self._registry.head(tagged)
            except NotFound:
                log.debug("%s does not exist", tagged)
            else:
                yield str(tagged)

    def _parsed(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        """Files as JSON values; those that are neither YAML nor JSON are left out."""
        parsed: dict[str, Any] = {}
        for path, content in files.items():
            # Images of one release share their layers, so the same bytes come again and again.
            known = self._values.get(content)
            if known is None:
                try:
                    known = (yamljson.parse(content, duplicate_keys="last"),)
                except InputError as error:
                    log.debug("%s: %s", path, error.message)
                    continue
                self._values.put(content, known, _PARSED * (1 + len(content)))
            parsed[path] = known[0]
        return parsed

    def _resolved(self, ref: str) -> Reference:
        return self._registry.resolve(_reference(ref))


def _reference(ref: object) -> Reference:
    if not isinstance(ref, str):
        raise BadReference(f"{ref!r} is no text")
    reference = Reference.parse(ref)
    if reference.digest is not None and reference.digest.algorithm != "sha256":
        raise BadReference(f"unsupported digest algorithm: {ref.partition('@')[2]}")
    return reference


def _digest_reference(ref: object) -> Reference:
    if not isinstance(ref, str) or ref.count("@") != 1:
        raise BadReference(
            "a digest must contain exactly one '@' separator "
            f"(e.g. registry/repository@digest) saw: {ref}"
        )
    return _reference(ref)


def _absence_is_undefined(name: str, function: Builtin, level: int = logging.ERROR) -> Builtin:
    """``function``, undefined for what is not there or not the name of anything."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (NotFound, BadReference) as error:
            _complain(name, arguments[0] if arguments else "", error.message, level)
            return Undefined

    return call


def _complain(name: str, ref: object, reason: str, level: int = logging.ERROR) -> None:
    fields = {"action": "fetch", "error": reason, "function": name, "ref": str(ref)}
    log.log(level, "no value for a rule", extra={"fields": fields})


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
