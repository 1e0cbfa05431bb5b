package settings_test

import data.lib.settings as given
import data.settings

_found(rule_data) := messages if {
	messages := {result.msg | some result in settings.deny} with data.rule_data as rule_data
}

test_defaults_are_valid if {
	count(settings.deny) == 0 with data.rule_data as {}
}

test_every_setting_that_exists_is_checked if {
	wrong := {name: 7 | some name, _ in given.defaults}
	{result.term | some result in settings.deny} == {name | some name, _ in given.defaults} with data.rule_data as wrong
}

test_the_configuration_is_checked_too if {
	settings.deny == {{
		"code": "settings.valid",
		"msg": "The setting required_labels is not a list",
		"term": "required_labels",
	}} with data.rule_data as {"required_labels": ["x"]}
		with data.rule_data__configuration__ as {"required_labels": "x"}
}

test_null_and_a_map_are_no_lists if {
	every value in [null, {"a": "b"}, true, "x", false] {
		_found({"allowed_setuid_files": value}) == {"The setting allowed_setuid_files is not a list"}
	}
}

test_entries_are_texts if {
	_found({"allowed_builders": ["https://builder", 7]}) == {"The setting allowed_builders has an entry that is not a text: 7"}
}

test_disallowed_packages_are_package_urls if {
	valid := ["pkg:npm/left-pad", "pkg:npm/%40scope/name@1.0.0"]
	_found({"disallowed_packages": valid}) == set()
	_found({"disallowed_packages": array.concat(valid, ["left-pad"])}) == {"The setting disallowed_packages has an entry that is not a package URL: \"left-pad\""}
}

test_deprecated_labels_are_a_map if {
	_found({"deprecated_labels": {"old": "new"}}) == set()
	every value in [["old"], {"old": 7}, "old", null] {
		_found({"deprecated_labels": value}) == {"The setting deprecated_labels is not a map of labels to their successors"}
	}
}

test_retired_base_images_are_complete if {
	entry := {"repository": "good.io/old", "date": "2030-01-01T00:00:00Z", "successor": "good.io/new"}
	_found({"retired_base_images": [entry]}) == set()
	every key in ["repository", "date", "successor"] {
		incomplete := object.remove(entry, [key])
		_found({"retired_base_images": [incomplete]}) == {sprintf("The setting retired_base_images has an entry without %s as text: %v", [key, incomplete])}
	}
	every date in ["soon", "2030-01-01", "2030-01-01T00:00:00+01:00"] {
		wrong := object.union(entry, {"date": date})
		_found({"retired_base_images": [wrong]}) == {sprintf("The setting retired_base_images has a date that is not like 2030-01-31T00:00:00Z: %q", [date])}
	}
}

test_a_retired_base_image_that_is_no_map if {
	count(_found({"retired_base_images": ["good.io/old"]})) == 3
}
