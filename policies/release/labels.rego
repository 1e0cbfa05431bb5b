# METADATA
# title: Image labels
# description: An image says what it is, in labels that people and scanners rely on.
package labels

import data.lib.result
import data.lib.settings

# METADATA
# title: Required labels
# description: Every label in the setting required_labels is present and not empty.
# custom:
#   short_name: required
#   failure_msg: The label %q is missing
#   solution: Set the label in the Containerfile or in the build pipeline.
#   collections:
#   - minimal
#   - release
deny contains found if {
	some name in settings.value("required_labels")
	object.get(_labels, name, "") == ""
	found := result.about(rego.metadata.chain(), name, [name])
}

# METADATA
# title: Deprecated labels
# description: No label in the setting deprecated_labels is used; each names its successor.
# custom:
#   short_name: deprecated
#   failure_msg: The label %q is deprecated, use %q
#   solution: Rename the label.
#   collections:
#   - release
warn contains found if {
	some name, successor in settings.value("deprecated_labels")
	_labels[name]
	found := result.about(rego.metadata.chain(), name, [name, successor])
}

default _labels := {}

_labels := input.image.config.Labels
