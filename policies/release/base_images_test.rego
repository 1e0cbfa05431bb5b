package base_images_test

import data.base_images

_ref := "registry.example.com/app@sha256:01"

_manifest(name) := {"annotations": {"org.opencontainers.image.base.name": name}}

_allowed := {"allowed_base_images": ["good.io/base", "127.0.0.1:5000/"]}

_codes(results) := {found.code | some found in results}

test_allowed if {
	every name in ["good.io/base", "good.io/base:9", "good.io/base@sha256:02", "good.io/base/ubi:9@sha256:02", "127.0.0.1:5000/x", "scratch"] {
		count(base_images.deny) == 0 with input as {"image": {"ref": _ref}}
			with ec.oci.image_manifest as _manifest(name)
			with data.rule_data as _allowed
	}
}

test_not_allowed if {
	every name in ["good.io/base-evil", "good.io/other", "evil.io/good.io/base", "good.io.evil.io/base", "127.0.0.1:50001/x"] {
		_codes(base_images.deny) == {"base_images.allowed"} with input as {"image": {"ref": _ref}}
			with ec.oci.image_manifest as _manifest(name)
			with data.rule_data as _allowed
	}
}

test_nothing_is_allowed_by_default if {
	_codes(base_images.deny) == {"base_images.allowed"} with input as {"image": {"ref": _ref}}
		with ec.oci.image_manifest as _manifest("good.io/base")
}

test_not_named if {
	every manifest in [{}, {"annotations": {}}, _manifest("")] {
		_codes(base_images.deny) == {"base_images.named"} with input as {"image": {"ref": _ref}}
			with ec.oci.image_manifest as manifest
	}
}

test_retired_from_a_date_on if {
	retired := {
		"allowed_base_images": ["good.io"],
		"retired_base_images": [{"repository": "good.io/old", "date": "2030-01-01T00:00:00Z", "successor": "good.io/new"}],
	}
	base_images.deny == {{
		"code": "base_images.not_retired",
		"msg": "The base image \"good.io/old:7\" is retired, use good.io/new",
		"term": "good.io/old",
		"effective_on": "2030-01-01T00:00:00Z",
	}} with input as {"image": {"ref": _ref}}
		with ec.oci.image_manifest as _manifest("good.io/old:7")
		with data.rule_data as retired
	count(base_images.deny) == 0 with input as {"image": {"ref": _ref}}
		with ec.oci.image_manifest as _manifest("good.io/old-but-gold")
		with data.rule_data as retired
}
