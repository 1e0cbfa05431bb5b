# METADATA
# title: Files in the image
# description: The file system of an image holds nothing that gives power or secrets away.
package files

import data.lib.result
import data.lib.settings

# METADATA
# title: No setuid or setgid files
# description: >-
#   No file of the unpacked image runs with its owner's or group's rights, but for those in the
#   setting allowed_setuid_files.
# custom:
#   short_name: no_setuid
#   failure_msg: The file /%s has the setuid or setgid bit (mode %s)
#   solution: Remove the bit with chmod in the layer that brings the file, or leave the file out.
#   collections:
#   - release
deny contains found if {
	wanted := {"kinds": ["file", "hardlink"], "mode": "6000"}
	some entry in conforma.oci.image_tree(input.image.ref, wanted)
	not entry.path in settings.value("allowed_setuid_files")
	found := result.about(rego.metadata.chain(), entry.path, [entry.path, sprintf("%04o", [entry.mode])])
}

# METADATA
# title: No private keys
# description: >-
#   No file of the unpacked image has a name from the setting private_key_files, but for those in
#   allowed_private_key_files.
# custom:
#   short_name: no_private_keys
#   failure_msg: The file /%s looks like a private key
#   solution: >-
#     Leave the file out of the build context, mount it as a build secret, and replace the key: it
#     has been published with the layer.
#   collections:
#   - release
deny contains found if {
	names := settings.value("private_key_files")
	count(names) > 0 # without any name the filter would admit every file
	wanted := {"kinds": ["file", "hardlink"], "paths": names}
	some entry in conforma.oci.image_tree(input.image.ref, wanted)
	not entry.path in settings.value("allowed_private_key_files")
	found := result.about(rego.metadata.chain(), entry.path, [entry.path])
}

# METADATA
# title: No secrets in configuration files
# description: >-
#   The YAML and JSON files in the directories of the setting configuration_directories have no
#   text under a key called password, secret, token or the like.
# custom:
#   short_name: no_secrets
#   failure_msg: The file /%s has a value for %q
#   solution: Have the value mounted or injected at run time, and replace the secret.
#   collections:
#   - release
deny contains found if {
	some path, content in ec.oci.image_files(input.image.ref, settings.value("configuration_directories"))
	walk(content, [place, value])
	is_string(value)
	value != ""
	key := place[count(place) - 1]
	regex.match(`(?i)^(.*[_.-])?(password|passwd|secret|token|api[_-]?key)$`, key)
	found := result.about(rego.metadata.chain(), path, [path, key])
}
