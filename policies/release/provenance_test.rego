package provenance_test

import data.lib.evidence
import data.provenance

_commit := "5f1e3a5c0b7d49c2a8e6f00d1234567890abcdef"

_material := {"uri": "git+https://git.example.com/app.git", "digest": {"sha1": _commit}}

_v1(builder) := {
	"predicateType": evidence.slsa_v1,
	"predicate": {
		"buildDefinition": {"resolvedDependencies": [_material]},
		"runDetails": {"builder": {"id": builder}},
	},
}

_v02(builder) := {"predicateType": evidence.slsa_v02, "predicate": {"builder": {"id": builder}, "materials": [_material]}}

_good := "https://tekton.dev/chains/v2"

_image(statements, source) := {
	"attestations": [{"statement": statement} | some statement in statements],
	"image": {"source": source},
}

_codes(results) := {found.code | some found in results}

test_current_provenance_of_an_allowed_builder if {
	count(provenance.deny) == 0 with input as _image([_v1(_good)], {})
}

test_none if {
	_codes(provenance.deny) == {"provenance.found"} with input as _image([], {})
}

test_other_builder if {
	provenance.deny == {{"code": "provenance.builder", "msg": "The builder \"https://evil\" is not allowed", "term": "https://evil"}} with input as _image([_v1("https://evil")], {})
}

test_one_good_provenance_does_not_excuse_another if {
	_codes(provenance.deny) == {"provenance.builder"} with input as _image([_v1(_good), _v1("https://evil")], {})
}

test_no_builder if {
	statement := {"predicateType": evidence.slsa_v1, "predicate": {"runDetails": {}}}
	_codes(provenance.deny) == {"provenance.builder"} with input as _image([statement], {})
}

test_old_format if {
	_codes(provenance.deny) == {"provenance.current_format"} with input as _image([_v02(_good)], {})
}

test_expected_source if {
	every url in ["https://git.example.com/app", "https://git.example.com/app.git", "git+https://git.example.com/app.git"] {
		source := {"git": {"url": url, "revision": _commit}}
		count(provenance.deny) == 0 with input as _image([_v1(_good)], source)
	}
}

test_other_source if {
	every git in [
		{"url": "https://git.example.com/other", "revision": _commit},
		{"url": "https://git.example.com/app", "revision": "0000000000000000000000000000000000000000"},
		{"url": "https://git.example.com/app"},
	] {
		_codes(provenance.deny) == {"provenance.source"} with input as _image([_v1(_good)], {"git": git})
	}
}
