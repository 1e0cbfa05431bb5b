// ec.purl.*: package URLs, answered here because a policy asks once for every
// package of an SBOM.
package main

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/package-url/packageurl-go"
)

func purlIsValid(e *evaluation, args []*ast.Term) (*ast.Term, error) {
	text, ok := args[0].Value.(ast.String)
	if !ok {
		return ast.BooleanTerm(false), nil
	}
	if _, err := packageurl.FromString(string(text)); err != nil {
		logPurl(e, "debug", "ec.purl.is_valid", string(text), err)
		return ast.BooleanTerm(false), nil
	}
	return ast.BooleanTerm(true), nil
}

func purlParse(e *evaluation, args []*ast.Term) (*ast.Term, error) {
	text, ok := args[0].Value.(ast.String)
	if !ok {
		return nil, nil
	}
	parsed, err := packageurl.FromString(string(text))
	if err != nil {
		logPurl(e, "error", "ec.purl.parse", string(text), err)
		return nil, nil
	}
	qualifiers := make([]*ast.Term, 0, len(parsed.Qualifiers))
	for _, q := range parsed.Qualifiers {
		qualifiers = append(qualifiers, ast.ObjectTerm(
			ast.Item(ast.StringTerm("key"), ast.StringTerm(q.Key)),
			ast.Item(ast.StringTerm("value"), ast.StringTerm(q.Value)),
		))
	}
	return ast.ObjectTerm(
		ast.Item(ast.StringTerm("type"), ast.StringTerm(parsed.Type)),
		ast.Item(ast.StringTerm("namespace"), ast.StringTerm(parsed.Namespace)),
		ast.Item(ast.StringTerm("name"), ast.StringTerm(parsed.Name)),
		ast.Item(ast.StringTerm("version"), ast.StringTerm(parsed.Version)),
		ast.Item(ast.StringTerm("qualifiers"), ast.ArrayTerm(qualifiers...)),
		ast.Item(ast.StringTerm("subpath"), ast.StringTerm(parsed.Subpath)),
	), nil
}

func logPurl(e *evaluation, level, function, purl string, err error) {
	if e == nil {
		return
	}
	e.log(level, "failed to parse PURL", map[string]string{"error": err.Error(), "function": function, "purl": purl})
}
