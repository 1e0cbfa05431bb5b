# METADATA
# title: Provenance
# description: It is known who built the image, and from which source.
package provenance

import data.lib.evidence
import data.lib.result
import data.lib.settings

# METADATA
# title: Provenance found
# description: There is a SLSA provenance attestation.
# custom:
#   short_name: found
#   failure_msg: No SLSA provenance was found
#   solution: Build with a service that attests what it does, such as Tekton Chains.
#   collections:
#   - minimal
#   - release
deny contains found if {
	count(evidence.provenances) == 0
	found := result.of(rego.metadata.chain(), [])
}

# METADATA
# title: Builder is allowed
# description: Every provenance names a builder of the setting allowed_builders.
# custom:
#   short_name: builder
#   failure_msg: The builder %q is not allowed
#   solution: Build with an allowed service, or add its identity to allowed_builders.
#   collections:
#   - release
deny contains found if {
	some statement in evidence.provenances
	builder := _builder(statement)
	not builder in settings.value("allowed_builders")
	found := result.about(rego.metadata.chain(), builder, [builder])
}

# METADATA
# title: Source is the expected one
# description: >-
#   If the snapshot says from which commit a component comes, the provenance lists that commit
#   among its materials.
# custom:
#   short_name: source
#   failure_msg: The provenance does not list the source %s at %s
#   solution: Build the component from the commit that the snapshot names.
#   collections:
#   - release
deny contains found if {
	some statement in evidence.provenances
	git := input.image.source.git
	not _lists(statement, git)
	found := result.of(rego.metadata.chain(), [git.url, object.get(git, "revision", "(no revision)")])
}

# METADATA
# title: Provenance format is current
# description: >-
#   The provenance is in SLSA's format v1. The older v0.2 is deprecated: until the date it gives a
#   warning, from then on a failure.
# custom:
#   short_name: current_format
#   failure_msg: The provenance is in the deprecated format SLSA v0.2
#   solution: Configure the build service to attest in SLSA's format v1.
#   collections:
#   - release
#   effective_on: "2027-07-01T00:00:00Z"
deny contains found if {
	some statement in evidence.provenances
	statement.predicateType == evidence.slsa_v02
	found := result.of(rego.metadata.chain(), [])
}

default _builder(_) := ""

_builder(statement) := evidence.builder(statement)

_lists(statement, git) if {
	some material in evidence.materials(statement)
	_address(material.uri) == _address(git.url)
	some algorithm in ["sha1", "gitCommit"]
	material.digest[algorithm] == git.revision
}

# An address whether or not it says that it is one of git.
_address(uri) := trim_suffix(trim_suffix(trim_prefix(uri, "git+"), "/"), ".git")
