package lib.evidence_test

import data.lib.evidence

_attested(statements) := {"attestations": [{"statement": statement} | some statement in statements]}

_v02 := {
	"predicateType": evidence.slsa_v02,
	"predicate": {
		"builder": {"id": "https://builder"},
		"materials": [{"uri": "git+https://one"}],
		"buildConfig": {"tasks": [{"results": [{"name": "SBOM_BLOB_URL", "value": "reg/app@sha256:01"}]}]},
	},
}

_v1 := {
	"predicateType": evidence.slsa_v1,
	"predicate": {
		"runDetails": {"builder": {"id": "https://builder"}},
		"buildDefinition": {"resolvedDependencies": [
			{"uri": "git+https://one"},
			{"name": "pipelineTask", "content": base64.encode(json.marshal({"status": {"results": [{
				"name": "SBOM_BLOB_URL",
				"value": "reg/app@sha256:01",
			}]}}))},
		]},
	},
}

test_both_forms_of_provenance_say_the_same if {
	every statement in [_v02, _v1] {
		evidence.builder(statement) == "https://builder"
		evidence.materials(statement)[0].uri == "git+https://one"
		evidence.task_results == {{"name": "SBOM_BLOB_URL", "value": "reg/app@sha256:01"}} with input as _attested([statement])
	}
}

test_sboms_come_from_attestations_and_blobs if {
	spdx := {"predicateType": "https://spdx.dev/Document", "predicate": {"SPDXID": "SPDXRef-DOCUMENT"}}
	evidence.sboms == {{"SPDXID": "SPDXRef-DOCUMENT"}, {"bomFormat": "CycloneDX"}} with input as _attested([_v1, spdx])
		with ec.oci.parsed_blob as {"bomFormat": "CycloneDX"}
}

test_purls_of_both_formats if {
	spdx := {"SPDXID": "SPDXRef-DOCUMENT", "packages": [{"externalRefs": [
		{"referenceType": "purl", "referenceLocator": "pkg:generic/a@1"},
		{"referenceType": "cpe23Type", "referenceLocator": "cpe:x"},
	]}]}
	evidence.purls(spdx) == {"pkg:generic/a@1"}
	evidence.purls({"bomFormat": "CycloneDX", "components": [{"purl": "pkg:generic/b@2"}, {"name": "c"}]}) == {"pkg:generic/b@2"}
}

test_packages_within_packages if {
	inner := {"purl": "pkg:npm/inner@1", "pedigree": {"ancestors": [{"purl": "pkg:npm/ancestor@1"}]}}
	sbom := {"bomFormat": "CycloneDX", "components": [{"purl": "pkg:npm/outer@1", "components": [inner]}, {"name": "none"}]}
	evidence.purls(sbom) == {"pkg:npm/outer@1", "pkg:npm/inner@1"}
}
