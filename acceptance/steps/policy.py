"""The policy a release is judged by, and where it is kept."""

from __future__ import annotations

from pytest_bdd import given, parsers

from acceptance.world import World
from conforma.serve.signing import policy_bundle

ALLOW = """
package main

# METADATA
# title: Anything goes
# custom:
#   short_name: anything
deny contains result if {
	false
	result := {"code": "main.anything", "msg": "never"}
}
"""

# Looks at every layer in three ways: as a tree, as parsed files, and blob by blob.
READS_LAYERS = """
package layers

# METADATA
# title: No private keys
# custom:
#   short_name: no_private_keys
deny contains result if {
	some entry in conforma.oci.image_tree(input.image.ref, {"paths": ["**/id_rsa"]})
	result := {"code": "layers.no_private_keys", "msg": sprintf("found %s", [entry.path])}
}

# METADATA
# title: Configuration
# custom:
#   short_name: configuration
deny contains result if {
	some path, content in ec.oci.image_files(input.image.ref, ["etc/app"])
	not is_number(content.layer)
	result := {"code": "layers.configuration", "msg": path}
}

# METADATA
# title: Every shared layer brings a configuration
# custom:
#   short_name: every_layer
deny contains result if {
	some layer in ec.oci.image_manifest(input.image.ref).layers
	layer.size > 100000
	blob := sprintf("%s@%s", [split(input.image.ref, "@")[0], layer.digest])
	count(ec.oci.blob_files(blob, ["etc/app/config.yaml"])) != 1
	result := {"code": "layers.every_layer", "msg": layer.digest}
}
"""


@given("a policy that accepts everything")
def accepting_policy(world: World) -> None:
    world.rules["main.rego"] = ALLOW


@given("a policy that reads every layer")
def reading_policy(world: World) -> None:
    world.rules["layers.rego"] = READS_LAYERS


@given(parsers.parse("a policy with the rule:"))
def policy_rule(world: World, docstring: str) -> None:
    world.rules[f"rule-{len(world.rules)}.rego"] = docstring


@given(parsers.parse("the rule data:"))
def rule_data(world: World, docstring: str) -> None:
    import yaml

    world.rule_data = yaml.safe_load(docstring)


@given(parsers.parse('the policy includes "{item}"'))
def include(world: World, item: str) -> None:
    world.include.append(item)


@given(parsers.parse('the policy excludes "{item}"'))
def exclude(world: World, item: str) -> None:
    world.exclude.append(item)


@given(parsers.parse('the policy is kept in the git repository "{name}"'), target_fixture="commit")
def in_git(world: World, name: str) -> str:
    files = {f"policy/{file}": text for file, text in world.rules.items()}
    commit = world.git.commit(name, files)
    world.policy_sources = [f"git::https://{world.git.host}/{name}.git//policy"]
    return commit


@given(parsers.parse('the policy is pushed to the registry as "{name}"'), target_fixture="bundle")
def in_registry(world: World, name: str) -> str:
    bundle = policy_bundle({file: text.encode() for file, text in world.rules.items()})
    digest = bundle.put(world.registry.store, name, "latest")
    world.policy_sources = [f"oci::{world.registry.host}/{name}:latest"]
    return str(digest)
