# METADATA
# title: Settings
# description: >-
#   What may be configured, with the value that holds if nobody does. The ruleData of a policy
#   configuration wins over rule_data of a data source, and that over the defaults here. A rule
#   therefore always finds a value and never passes because a list was forgotten.
package lib.settings

value(name) := configured if {
	configured := data.rule_data__configuration__[name]
} else := supplied if {
	supplied := data.rule_data[name]
} else := defaults[name]

defaults := {
	"required_labels": ["org.opencontainers.image.title", "org.opencontainers.image.version", "org.opencontainers.image.source"],
	"deprecated_labels": {},
	"allowed_base_images": [],
	"retired_base_images": [],
	"allowed_setuid_files": [],
	"private_key_files": [
		"**/id_rsa",
		"**/id_dsa",
		"**/id_ecdsa",
		"**/id_ed25519",
		"**/*.key",
		"**/*_key.pem",
	],
	"allowed_private_key_files": [],
	"configuration_directories": [],
	"disallowed_packages": [],
	"allowed_builders": ["https://tekton.dev/chains/v2"],
}
