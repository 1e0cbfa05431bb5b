package sbom_test

import data.sbom

_attested(document) := {"attestations": [{"statement": {"predicateType": "https://cyclonedx.org/bom", "predicate": document}}]}

_with_packages(purls) := _attested({"bomFormat": "CycloneDX", "components": [{"purl": purl} | some purl in purls]})

test_found if {
	count(sbom.deny) == 0 with input as _with_packages(["pkg:rpm/redhat/bash@5.1"])
}

test_not_found if {
	every given in [{"attestations": []}, {"attestations": [{"statement": {"predicateType": "https://other", "predicate": {}}}]}] {
		sbom.deny == {{"code": "sbom.found", "msg": "No bill of material was found"}} with input as given
	}
}

test_an_empty_document if {
	every given in [_with_packages([]), _attested({"something": "else"})] {
		sbom.deny == {{"code": "sbom.lists_packages", "msg": "A bill of material lists no packages"}} with input as given
	}
}

test_disallowed_packages if {
	purls := ["pkg:rpm/redhat/bash@5.1", "pkg:pypi/requests@2.0.0"]
	every disallowed in ["pkg:rpm/redhat/bash", "pkg:rpm/redhat/bash@5.1"] {
		sbom.deny == {{
			"code": "sbom.no_disallowed_packages",
			"msg": "The package pkg:rpm/redhat/bash@5.1 is not allowed",
			"term": "pkg:rpm/redhat/bash@5.1",
		}} with input as _with_packages(purls)
			with data.rule_data as {"disallowed_packages": [disallowed]}
	}
	every allowed in ["pkg:rpm/redhat/bash@5.2", "pkg:rpm/fedora/bash", "pkg:deb/redhat/bash", "pkg:rpm/redhat/dash"] {
		count(sbom.deny) == 0 with input as _with_packages(purls)
			with data.rule_data as {"disallowed_packages": [allowed]}
	}
}
