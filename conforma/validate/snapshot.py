"""What is to be validated: components, read from every input and merged into one snapshot.

Follows sections 1.2 and 1.3 of the ``validate image`` specification. Two
things fail here that the Go tool lets pass: a snapshot without components,
and the same image under a second name being dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from conforma import yamljson
from conforma.errors import BadSnapshot, InputError
from conforma.validate.document import BadDocument, Record

UNNAMED: Final = "Unnamed"
_SHOWN: Final = 500
_GIT_FIELDS: Final = ("url", "revision", "context", "devfileUrl", "dockerfileUrl")


class Component(Struct, frozen=True):
    """A named image; ``source`` is the JSON object that says what it was built from."""

    name: str
    container_image: str
    source: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The component in the field order of reports and policy input."""
        return {
            "name": self.name,
            "containerImage": self.container_image,
            "source": dict(self.source),
        }


class Snapshot(Struct, frozen=True):
    """All components of one run and what their document says about itself."""

    components: tuple[Component, ...] = ()
    application: str = ""
    display_name: str = ""
    display_description: str = ""
    artifacts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The snapshot in the field order of the policy input (specification section 6)."""
        document: dict[str, Any] = {"application": self.application}
        if self.display_name:
            document["displayName"] = self.display_name
        if self.display_description:
            document["displayDescription"] = self.display_description
        if self.components:
            document["components"] = [component.as_dict() for component in self.components]
        document["artifacts"] = dict(self.artifacts)
        return document


def from_image(image: str) -> Snapshot:
    """The snapshot that ``--image`` stands for."""
    return Snapshot((Component(UNNAMED, image),))


def from_path_or_text(value: str) -> Snapshot:
    """The snapshot of ``--images``: a file if there is one of that name, else the text itself.

    Raises ``BadSnapshot``.
    """
    try:
        text = Path(value).read_text(encoding="utf-8")
    except UnicodeDecodeError as cause:
        raise BadSnapshot(f"open {value}: not UTF-8 text: {cause}") from cause
    except (OSError, ValueError) as cause:
        try:
            return parse(value)
        except BadSnapshot as error:
            if _looks_like_a_path(value):
                reason = cause.strerror if isinstance(cause, OSError) else str(cause)
                error.hint = f"taken as a file, {value} could not be read: {reason}"
            raise
    return _parsed(text, value)


def from_file(path: str) -> Snapshot:
    """The snapshot of ``--file-path``. Raises ``BadSnapshot``."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise BadSnapshot(f"open {path}: {reason}") from cause
    except ValueError as cause:
        raise BadSnapshot(f"open {path}: not UTF-8 text: {cause}") from cause
    return _parsed(text, path)


def _parsed(text: str, path: str) -> Snapshot:
    try:
        return parse(text)
    except BadSnapshot as error:
        error.hint = f"the text was read from {path}"
        raise


def parse(text: str) -> Snapshot:
    """Read an ApplicationSnapshot document, as JSON or YAML.

    Raises ``BadSnapshot``, whose message holds the text, as the Go tool's does, unless it is
    long: a file that was named by mistake may be large, and need not be for everybody's eyes.
    """
    try:
        return from_document(yamljson.parse(text))
    except (InputError, BadDocument) as cause:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
        raise BadSnapshot(
            f"unable to parse Snapshot specification from {shown}: {cause}"
        ) from cause


def from_document(document: Any) -> Snapshot:
    """The snapshot in a parsed document: a bare specification or a cluster record.

    Raises ``BadDocument``.
    """
    record = Record(document, "the document")
    if record.get("spec") is not None:
        record = Record(record.get("spec"), "spec")
    artifacts = record.record("artifacts").get("unstableFields")
    return Snapshot(
        components=tuple(
            _component(Record(item, f"components[{number}]"))
            for number, item in enumerate(record.items("components"))
        ),
        application=record.text("application"),
        display_name=record.text("displayName"),
        display_description=record.text("displayDescription"),
        artifacts={} if artifacts is None else {"unstableFields": artifacts},
    )


def from_cluster(reference: str, fetch: Callable[[str], Any]) -> Snapshot:
    """The snapshot that ``fetch`` gets for ``[namespace/]name``. Raises ``BadSnapshot``."""
    document = fetch(reference)
    try:
        return from_document(document)
    except BadDocument as cause:
        raise BadSnapshot(f"Snapshot {reference} cannot be used: {cause}") from cause


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot out of several, in order; the first to say something about itself wins.

    An image that comes again completes a nameless entry, is dropped if its
    name is known or none, and otherwise stays as a second component, since
    policy may treat the two names differently.
    """
    merged = Snapshot()
    components: list[Component] = []
    places: dict[str, list[int]] = {}  # of every image in the list above
    for snapshot in snapshots:
        merged = replace(
            merged,
            application=merged.application or snapshot.application,
            display_name=merged.display_name or snapshot.display_name,
            display_description=merged.display_description or snapshot.display_description,
            artifacts=merged.artifacts or snapshot.artifacts,
        )
        for component in snapshot.components:
            _add(components, places.setdefault(component.container_image, []), component)
    return replace(merged, components=tuple(components))


def check(snapshot: Snapshot) -> Snapshot:
    """The snapshot itself, if it can be validated.

    Raises ``BadSnapshot`` if it has no components or gives one name to several images.
    """
    if not snapshot.components:
        raise BadSnapshot(
            "the snapshot has no components, so there is nothing to validate",
            hint="a release without images cannot be told from a damaged snapshot",
        )
    images: dict[str, str] = {}
    for component in snapshot.components:
        if component.name in ("", UNNAMED):
            continue
        other = images.setdefault(component.name, component.container_image)
        if other != component.container_image:
            raise BadSnapshot(
                f'the snapshot has two components named "{component.name}": '
                f"{other} and {component.container_image}",
                hint="give every component a name of its own",
            )
    return snapshot


def _add(components: list[Component], places: list[int], new: Component) -> None:
    for place in places:
        known = components[place]
        if new.name in ("", known.name) or (new.name == UNNAMED and known.name):
            return
        if known.name in ("", UNNAMED):
            components[place] = replace(known, name=new.name, source=known.source or new.source)
            return
    places.append(len(components))
    components.append(new)


def _component(record: Record) -> Component:
    source: dict[str, Any] = {}
    if (found := record.get("source")) is not None:
        given = Record(found, "source")
        if given.get("git") is not None:
            git = given.record("git")
            values = {name: git.text(name) for name in _GIT_FIELDS}
            source["git"] = {k: v for k, v in values.items() if v or k == "url"}
    return Component(record.text("name"), record.text("containerImage"), source)


def _looks_like_a_path(value: str) -> bool:
    return (
        bool(value) and len(value) < 4096 and ": " not in value and not set("\n{}[]") & set(value)
    )
