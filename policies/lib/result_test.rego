package lib.result_test

import data.lib.result

_chain := [{
	"annotations": {"custom": {"short_name": "tall", "failure_msg": "%s is not tall"}},
	"path": ["trees", "deny"],
}]

test_code_and_text_come_from_the_annotations if {
	result.of(_chain, ["the elm"]) == {"code": "trees.tall", "msg": "the elm is not tall"}
}

test_a_term_is_added if {
	result.about(_chain, "elm", ["the elm"]) == {
		"code": "trees.tall",
		"msg": "the elm is not tall",
		"term": "elm",
	}
}
