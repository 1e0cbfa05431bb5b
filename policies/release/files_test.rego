package files_test

import data.files

_input := {"image": {"ref": "registry.example.com/app@sha256:01"}}

_su := {"path": "usr/bin/su", "kind": "file", "mode": 2541, "uid": 0, "gid": 0, "size": 1, "link_target": "", "layer": "sha256:02"}

_key := {"path": "srv/app/.ssh/id_rsa", "kind": "file", "mode": 384, "uid": 0, "gid": 0, "size": 1, "link_target": "", "layer": "sha256:02"}

_tree_with_su(_, filter) := [_su] if filter.mode == "6000"

_tree_with_su(_, filter) := [] if filter.paths

_tree_with_key(_, filter) := [] if filter.mode

_tree_with_key(_, filter) := [_key] if "**/id_rsa" in filter.paths

_empty_tree(_, _) := []

test_clean if {
	count(files.deny) == 0 with input as _input
		with conforma.oci.image_tree as _empty_tree
		with ec.oci.image_files as {}
}

test_setuid if {
	files.deny == {{
		"code": "files.no_setuid",
		"msg": "The file /usr/bin/su has the setuid or setgid bit (mode 4755)",
		"term": "usr/bin/su",
	}} with input as _input
		with conforma.oci.image_tree as _tree_with_su
		with ec.oci.image_files as {}
		with data.rule_data as {}
}

test_an_allowed_setuid_file if {
	count(files.deny) == 0 with input as _input
		with conforma.oci.image_tree as _tree_with_su
		with ec.oci.image_files as {}
		with data.rule_data as {"allowed_setuid_files": ["usr/bin/su"]}
}

test_private_key if {
	files.deny == {{
		"code": "files.no_private_keys",
		"msg": "The file /srv/app/.ssh/id_rsa looks like a private key",
		"term": "srv/app/.ssh/id_rsa",
	}} with input as _input
		with conforma.oci.image_tree as _tree_with_key
		with ec.oci.image_files as {}
}

test_an_allowed_private_key if {
	count(files.deny) == 0 with input as _input
		with conforma.oci.image_tree as _tree_with_key
		with ec.oci.image_files as {}
		with data.rule_data as {"allowed_private_key_files": ["srv/app/.ssh/id_rsa"]}
}

test_without_names_no_file_is_a_key if {
	count(files.deny) == 0 with input as _input
		with conforma.oci.image_tree as _tree_of_everything
		with ec.oci.image_files as {}
		with data.rule_data as {"private_key_files": []}
}

_tree_of_everything(_, filter) := [_key] if filter.paths

_tree_of_everything(_, filter) := [] if filter.mode

test_secrets if {
	content := {"etc/app/config.yaml": {
		"database": {"user": "app", "password": "hunter2"},
		"cache": {"DB_PASSWORD": "x", "token": "", "secret": {"from": "vault"}, "tokenizer": "words"},
	}}
	{found.msg | some found in files.deny} == {
		"The file /etc/app/config.yaml has a value for \"password\"",
		"The file /etc/app/config.yaml has a value for \"DB_PASSWORD\"",
	} with input as _input
		with conforma.oci.image_tree as _empty_tree
		with ec.oci.image_files as content
}
