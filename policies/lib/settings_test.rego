package lib.settings_test

import data.lib.settings

test_default if {
	settings.value("allowed_builders") == ["https://tekton.dev/chains/v2"]
}

test_data_wins_over_default if {
	settings.value("allowed_builders") == ["b"] with data.rule_data as {"allowed_builders": ["b"]}
}

test_configuration_wins_over_data if {
	settings.value("allowed_builders") == ["c"] with data.rule_data as {"allowed_builders": ["b"]}
		with data.rule_data__configuration__ as {"allowed_builders": ["c"]}
}

test_an_empty_list_is_a_value if {
	settings.value("allowed_builders") == [] with data.rule_data as {"allowed_builders": []}
}
