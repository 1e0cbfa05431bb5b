# METADATA
# title: Base images
# description: An image is built on a base that is known, allowed and still maintained.
package base_images

import data.lib.result
import data.lib.settings

# METADATA
# title: Base image is named
# description: >-
#   The manifest has the annotation org.opencontainers.image.base.name, or says with the value
#   "scratch" that there is no base image.
# custom:
#   short_name: named
#   failure_msg: The image does not name its base image
#   solution: Annotate the manifest with org.opencontainers.image.base.name; most builders can do it.
#   collections:
#   - release
deny contains found if {
	not _name
	found := result.of(rego.metadata.chain(), [])
}

# METADATA
# title: Base image is allowed
# description: >-
#   The base image is in one of the registries or repositories of the setting
#   allowed_base_images, each a prefix that ends where a part of the name ends.
# custom:
#   short_name: allowed
#   failure_msg: The base image %q is not from an allowed source
#   solution: Build on an allowed base image, or add its repository to allowed_base_images.
#   collections:
#   - release
#   depends_on: base_images.named
deny contains found if {
	_name != "scratch"
	not _in_any(_name, settings.value("allowed_base_images"))
	found := result.about(rego.metadata.chain(), _repository, [_name])
}

# METADATA
# title: Base image is not retired
# description: >-
#   The base image is in none of the repositories of the setting retired_base_images. Each entry
#   has a date; before it the result is a warning.
# custom:
#   short_name: not_retired
#   failure_msg: The base image %q is retired, use %s
#   solution: Move to the successor named in the message.
#   collections:
#   - release
deny contains found if {
	some retired in settings.value("retired_base_images")
	_in_any(_name, [retired.repository])
	about := result.about(rego.metadata.chain(), _repository, [_name, retired.successor])
	found := object.union(about, {"effective_on": retired.date})
}

_name := name if {
	annotations := ec.oci.image_manifest(input.image.ref).annotations
	name := annotations["org.opencontainers.image.base.name"]
	name != ""
}

# The name without digest and tag. A colon before a slash is that of a port.
_repository := regex.replace(split(_name, "@")[0], `:[^:/]+$`, "")

_in_any(name, prefixes) if {
	some prefix in prefixes
	_starts(name, trim_suffix(prefix, "/"))
}

_starts(name, prefix) if {
	some separator in ["", "/", ":", "@"]
	startswith(concat("", [name, "\n"]), concat("", [prefix, separator, _end(separator)]))
}

# Without a separator only the whole name matches: "good.io/base" is no prefix of "good.io/base-evil".
_end("") := "\n"

_end(separator) := "" if separator != ""
