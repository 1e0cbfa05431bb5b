# METADATA
# title: Evidence
# description: Finds provenance and bills of material among the verified attestations of an image.
package lib.evidence

slsa_v02 := "https://slsa.dev/provenance/v0.2"

slsa_v1 := "https://slsa.dev/provenance/v1"

statements contains attestation.statement if some attestation in input.attestations

provenances contains statement if {
	some statement in statements
	statement.predicateType in {slsa_v02, slsa_v1}
}

builder(statement) := statement.predicate.builder.id if statement.predicateType == slsa_v02

builder(statement) := statement.predicate.runDetails.builder.id if statement.predicateType == slsa_v1

# What went into the build: sources and images, each with uri and digest.
materials(statement) := statement.predicate.materials if statement.predicateType == slsa_v02

materials(statement) := statement.predicate.buildDefinition.resolvedDependencies if {
	statement.predicateType == slsa_v1
}

# The results that the tasks of a build report, as name and value.
task_results contains task_result if {
	some statement in provenances
	some task in _tasks(statement)
	some task_result in task.results
}

_tasks(statement) := statement.predicate.buildConfig.tasks if statement.predicateType == slsa_v02

_tasks(statement) := [task.status |
	some dependency in materials(statement)
	dependency.name == "pipelineTask"
	task := json.unmarshal(base64.decode(dependency.content))
] if {
	statement.predicateType == slsa_v1
}

# Attested bills of material, and those that the build left as a blob.
sboms contains statement.predicate if {
	some statement in statements
	statement.predicateType in {"https://spdx.dev/Document", "https://cyclonedx.org/bom"}
}

sboms contains ec.oci.parsed_blob(task_result.value) if {
	some task_result in task_results
	task_result.name == "SBOM_BLOB_URL"
}

# The package URLs of a bill of material.
purls(sbom) := {reference.referenceLocator |
	some entry in sbom.packages
	some reference in entry.externalRefs
	reference.referenceType == "purl"
} if {
	sbom.SPDXID
}

# CycloneDX has components within components; what is beside them is history, not content.
purls(sbom) := {component.purl |
	walk(sbom.components, [path, component])
	every step in path {
		_is_position(step)
	}
} if {
	sbom.bomFormat == "CycloneDX"
}

_is_position(step) if is_number(step)

_is_position("components")
