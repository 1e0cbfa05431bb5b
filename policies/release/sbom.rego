# METADATA
# title: Bill of material
# description: An image comes with a list of what is in it, and nothing on the list is forbidden.
package sbom

import data.lib.evidence
import data.lib.result
import data.lib.settings

# METADATA
# title: Bill of material found
# description: >-
#   There is an SPDX or CycloneDX document, as an attestation or as a blob that the provenance
#   names.
# custom:
#   short_name: found
#   failure_msg: No bill of material was found
#   solution: Let the build pipeline make one and attest it.
#   collections:
#   - minimal
#   - release
deny contains found if {
	count(evidence.sboms) == 0
	found := result.of(rego.metadata.chain(), [])
}

# METADATA
# title: Bill of material lists packages
# description: Every bill of material names at least one package by its package URL.
# custom:
#   short_name: lists_packages
#   failure_msg: A bill of material lists no packages
#   solution: Point the tool that makes the document at the built image.
#   collections:
#   - release
deny contains found if {
	some sbom in evidence.sboms
	count(_purls(sbom)) == 0
	found := result.of(rego.metadata.chain(), [])
}

# METADATA
# title: No disallowed packages
# description: >-
#   No package is in the setting disallowed_packages, whose entries are package URLs. One without
#   a version stands for all versions.
# custom:
#   short_name: no_disallowed_packages
#   failure_msg: The package %s is not allowed
#   solution: Update or remove the package.
#   collections:
#   - release
deny contains found if {
	some sbom in evidence.sboms
	some purl in _purls(sbom)
	some disallowed in settings.value("disallowed_packages")
	_same(ec.purl.parse(purl), ec.purl.parse(disallowed))
	found := result.about(rego.metadata.chain(), purl, [purl])
}

default _purls(_) := set()

_purls(sbom) := evidence.purls(sbom)

_same(entry, disallowed) if {
	every part in ["type", "namespace", "name"] {
		object.get(entry, part, "") == object.get(disallowed, part, "")
	}
	object.get(disallowed, "version", "") in {"", object.get(entry, "version", "")}
}
