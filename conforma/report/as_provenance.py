"""``provenance``: what the verdicts rest on.

Who vouched for each signature and attestation, and which log witnessed it;
which content was used, where it came from and when it was last hashed; and
what all of it cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import asdict

from conforma import gojson
from conforma.cache.origins import Origin
from conforma.validate.result import Report


def render(report: Report) -> Iterator[str]:
    """One line of JSON, a piece for each component and each digest."""
    digests = _by_image(report)
    separator = '{"components":['
    for result in report.components:
        yield separator + gojson.dumps(
            {
                "name": result.component.name,
                "containerImage": result.image,
                "success": result.success,
                **result.provenance,
                "content": digests.get(result.image, []),
            }
        )
        separator = ","
    yield "]" if report.components else '{"components":[]'
    separator = ',"content":['
    for origin in report.effort.origins:
        yield separator + gojson.dumps(_origin(origin))
        separator = ","
    yield "]" if report.effort.origins else ',"content":[]'
    yield ',"totals":' + gojson.dumps(_totals(report)) + "}"


def _by_image(report: Report) -> Mapping[str, list[str]]:
    """The digests of layers and configurations that were read, by image."""
    found: dict[str, list[str]] = {}
    for origin in report.effort.origins:
        for image in origin.images:
            found.setdefault(image, []).append(str(origin.digest))
    return found


def _origin(origin: Origin) -> dict[str, Any]:
    members: dict[str, Any] = {"digest": str(origin.digest), "size": origin.size}
    if origin.media_type:
        members["mediaType"] = origin.media_type
    members["source"] = origin.source
    if origin.place:
        members["place"] = origin.place
    if origin.verified:
        moment = datetime.fromtimestamp(origin.verified, UTC)
        members["verified"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    members["uses"] = origin.uses
    return members


def _totals(report: Report) -> dict[str, Any]:
    """The run's totals under their names in the program, in camel case; waits in seconds."""
    effort = report.effort
    return {
        "cache": _camel_case(asdict(effort.cache)),
        "registry": _camel_case(asdict(effort.registry)),
    }


def _camel_case(members: Mapping[str, Any]) -> dict[str, Any]:
    def spelt(name: str) -> str:
        first, *rest = name.split("_")
        return first + "".join(part.capitalize() for part in rest)

    return {spelt(name): value for name, value in members.items()}
