# METADATA
# title: Settings
# description: The settings of the rules are such that the rules can use them.
package settings

import data.lib.result
import data.lib.settings as given

# METADATA
# title: Settings are valid
# description: >-
#   Every setting has the form that its rules expect. With another one a rule would find nothing
#   to object to, and pass.
# custom:
#   short_name: valid
#   failure_msg: The setting %s %s
#   solution: Correct the setting in the ruleData of the policy configuration, or in the data source.
#   collections:
#   - minimal
#   - release
deny contains found if {
	some name, problems in _problems
	some problem in problems
	found := result.about(rego.metadata.chain(), name, [name, problem])
}

_lists := {
	"required_labels",
	"allowed_base_images",
	"retired_base_images",
	"allowed_setuid_files",
	"private_key_files",
	"allowed_private_key_files",
	"configuration_directories",
	"disallowed_packages",
	"allowed_builders",
}

_lists_of_texts := _lists - {"retired_base_images"}

_problems[name] contains "is not a list" if {
	some name in _lists
	not is_array(given.value(name))
}

_problems[name] contains sprintf("has an entry that is not a text: %v", [entry]) if {
	some name in _lists_of_texts
	is_array(given.value(name))
	some entry in given.value(name)
	not is_string(entry)
}

_problems.deprecated_labels contains "is not a map of labels to their successors" if {
	not _is_map_of_texts(given.value("deprecated_labels"))
}

_problems.retired_base_images contains sprintf("has an entry without %s as text: %v", [key, entry]) if {
	is_array(given.value("retired_base_images"))
	some entry in given.value("retired_base_images")
	some key in ["repository", "date", "successor"]
	not _has_text(entry, key)
}

_problems.retired_base_images contains sprintf("has a date that is not like 2030-01-31T00:00:00Z: %q", [entry.date]) if {
	is_array(given.value("retired_base_images"))
	some entry in given.value("retired_base_images")
	is_string(entry.date)
	not _is_date(entry.date)
}

_problems.disallowed_packages contains sprintf("has an entry that is not a package URL: %q", [entry]) if {
	is_array(given.value("disallowed_packages"))
	some entry in given.value("disallowed_packages")
	is_string(entry)
	not ec.purl.is_valid(entry)
}

_is_map_of_texts(value) if {
	is_object(value)
	every successor in value {
		is_string(successor)
	}
}

_has_text(entry, key) if is_string(entry[key])

_is_date(text) if {
	endswith(text, "Z") # as an effective_on has to
	time.parse_rfc3339_ns(text)
}
