package labels_test

import data.labels

_image(given) := {"image": {"config": {"Labels": given}}}

_required := {"required_labels": ["name", "version"]}

test_all_there if {
	count(labels.deny) == 0 with input as _image({"name": "app", "version": "1"}) with data.rule_data as _required
}

test_missing_and_empty if {
	labels.deny == {
		{"code": "labels.required", "msg": "The label \"name\" is missing", "term": "name"},
		{"code": "labels.required", "msg": "The label \"version\" is missing", "term": "version"},
	} with input as _image({"version": ""}) with data.rule_data as _required
}

test_an_image_without_any_label if {
	every image in [{"image": {"config": {}}}, {"image": {}}] {
		count(labels.deny) == 2 with input as image with data.rule_data as _required
	}
}

test_deprecated if {
	labels.warn == {{"code": "labels.deprecated", "msg": "The label \"old\" is deprecated, use \"new\"", "term": "old"}} with input as _image({"old": "x"})
		with data.rule_data as {"deprecated_labels": {"old": "new"}}
	count(labels.warn) == 0 with input as _image({"new": "x"})
		with data.rule_data as {"deprecated_labels": {"old": "new"}}
}
