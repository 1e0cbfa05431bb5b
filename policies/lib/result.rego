# METADATA
# title: Results
# description: Turns the annotations of a rule into the result it reports.
package lib.result

# The result of the rule whose rego.metadata.chain() this is. The code comes
# from its package and short_name, the text from its failure_msg.
of(chain, parameters) := {
	"code": code(chain),
	"msg": sprintf(chain[0].annotations.custom.failure_msg, parameters),
}

# The same with a term: what the result is about, so that an exclusion can name it.
about(chain, term, parameters) := object.union(of(chain, parameters), {"term": term})

code(chain) := sprintf("%s.%s", [package_name, chain[0].annotations.custom.short_name]) if {
	# The path of a rule is that of its package, then its name.
	path := chain[0].path
	package_name := concat(".", array.slice(path, 0, count(path) - 1))
}
