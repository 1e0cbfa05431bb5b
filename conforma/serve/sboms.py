"""Bills of material of an image: SPDX 2.3 and CycloneDX 1.5 documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from conforma.oci.digest import Digest

SPDX_MEDIA_TYPE = "application/spdx+json"
_CREATED = "2026-01-05T10:07:00Z"


class Package(Struct, frozen=True):
    """One thing that is in an image."""

    name: str
    version: str
    license: str = "Apache-2.0"
    kind: str = "generic"

    @property
    def purl(self) -> str:
        """The package URL."""
        return f"pkg:{self.kind}/{self.name}@{self.version}"


def spdx(image: str, digest: Digest, packages: Iterable[Package]) -> dict[str, Any]:
    """An SPDX document that describes the image and lists its packages."""
    described = {
        "SPDXID": "SPDXRef-image",
        "name": image,
        "versionInfo": str(digest),
        "downloadLocation": "NOASSERTION",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [],
    }
    listed = [
        {
            "SPDXID": f"SPDXRef-Package-{number}",
            "name": package.name,
            "versionInfo": package.version,
            "supplier": "Organization: Example",
            "downloadLocation": "NOASSERTION",
            "licenseConcluded": package.license,
            "licenseDeclared": package.license,
            "copyrightText": "NOASSERTION",
            "externalRefs": [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": package.purl,
                }
            ],
        }
        for number, package in enumerate(packages, 1)
    ]
    contained = [
        {
            "spdxElementId": "SPDXRef-image",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": package["SPDXID"],
        }
        for package in listed
    ]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{image}@{digest}",
        "documentNamespace": f"https://sbom.example.com/{digest.hex}",
        "creationInfo": {"created": _CREATED, "creators": ["Tool: conforma"]},
        "packages": [described, *listed],
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": "SPDXRef-image",
            },
            *contained,
        ],
    }


def cyclonedx(image: str, digest: Digest, packages: Iterable[Package]) -> dict[str, Any]:
    """A CycloneDX document whose component is the image."""
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": _CREATED,
            "component": {"type": "container", "name": image, "version": str(digest)},
        },
        "components": [
            {
                "type": "library",
                "name": package.name,
                "version": package.version,
                "purl": package.purl,
                "licenses": [{"license": {"id": package.license}}],
            }
            for package in packages
        ],
    }
