// What the rules of a policy directory say about themselves: their annotations,
// position, name and the shape of their value.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/loader"
)

var verdictNames = regexp.MustCompile(`^(deny|violation|warn)(_[a-zA-Z0-9]+)*$`)

func isVerdict(name string) bool { return verdictNames.MatchString(name) }

type ruleInfo struct {
	File    string   `json:"file"`
	Row     int      `json:"row"`
	Column  int      `json:"column"`
	Package []string `json:"package"`
	Name    string   `json:"name"`
	Path    []string `json:"path"`
	// Shape is the kind of the rule's value, or of its key for "contains".
	Shape string `json:"shape"`
	// Text is the rule as OPA prints it, given where the shape is unsupported.
	Text string `json:"text,omitempty"`
	// Code is the literal "code" of an object assigned in the body.
	Code  string     `json:"code,omitempty"`
	Chain []chainRef `json:"chain"`
}

type chainRef struct {
	File   string   `json:"file"`
	Row    int      `json:"row"`
	Column int      `json:"column"`
	Path   []string `json:"path"`
	// Terms is the path as OPA writes it: with the leading data, each with its type.
	Terms       ast.Ref          `json:"terms"`
	OfRule      bool             `json:"of_rule"`
	Scope       string           `json:"scope,omitempty"`
	Annotations *ast.Annotations `json:"annotations"`
}

// inspectDir describes every rule below dir except those of tests. File names
// are relative to dir.
func inspectDir(dir string) ([]ruleInfo, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	paths, err := loader.FilteredPaths(loaderPaths([]string{dir}), func(_ string, info os.FileInfo, _ int) bool {
		name := strings.ToLower(info.Name())
		return !info.IsDir() && (!strings.HasSuffix(name, ".rego") || strings.HasSuffix(name, "_test.rego"))
	})
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, errors.New("no rego files found in policy subdirectory")
	}
	rules := []ruleInfo{}
	for _, path := range paths {
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return nil, err
		}
		module, err := parseModule(path, filepath.ToSlash(name))
		if err != nil {
			return nil, err
		}
		annotations, errs := ast.BuildAnnotationSet([]*ast.Module{module})
		if len(errs) > 0 {
			return nil, errs
		}
		for _, rule := range module.Rules {
			rules = append(rules, describe(rule, annotations.Chain(rule)))
		}
	}
	return rules, nil
}

func describe(rule *ast.Rule, chain ast.AnnotationsRefSet) ruleInfo {
	info := ruleInfo{
		File:    rule.Location.File,
		Row:     rule.Location.Row,
		Column:  rule.Location.Col,
		Package: pathOf(rule.Module.Package.Path),
		Name:    rule.Head.Name.String(),
		Path:    pathOf(rule.Ref().GroundPrefix()),
		Code:    literalCode(rule.Body),
		Chain:   make([]chainRef, 0, len(chain)),
	}
	shape, supported := shapeOf(rule.Head)
	if info.Shape = shape; !supported {
		info.Text = rule.String()
	}
	for _, ref := range chain {
		entry := chainRef{
			File:        ref.Location.File,
			Row:         ref.Location.Row,
			Column:      ref.Location.Col,
			Path:        pathOf(ref.Path),
			Terms:       ref.Path,
			OfRule:      ref.GetRule() != nil,
			Annotations: ref.Annotations,
		}
		if ref.Annotations != nil {
			entry.Scope = ref.Annotations.Scope
		}
		info.Chain = append(info.Chain, entry)
	}
	return info
}

func pathOf(ref ast.Ref) []string {
	path := make([]string, 0, len(ref))
	for _, term := range ref {
		path = append(path, strings.Trim(term.Value.String(), `"`))
	}
	if len(path) > 0 && path[0] == "data" {
		path = path[1:]
	}
	return path
}

// shapeOf names the kind of value a rule yields and whether a report can be
// made of it.
func shapeOf(head *ast.Head) (string, bool) {
	term := head.Value
	if term == nil {
		term = head.Key
	}
	if term == nil {
		return "none", false
	}
	switch term.Value.(type) {
	case ast.String:
		return "string", true
	case ast.Object:
		return "object", true
	case ast.Var:
		return "var", true
	case ast.Call:
		return "call", true
	}
	return strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", term.Value), "*"), "ast.")), false
}

func literalCode(body ast.Body) string {
	for _, expression := range body {
		if !expression.IsAssignment() || len(expression.Operands()) < 2 {
			continue
		}
		object, ok := expression.Operands()[1].Value.(ast.Object)
		if !ok {
			continue
		}
		if term := object.Get(ast.StringTerm("code")); term != nil {
			if code, ok := term.Value.(ast.String); ok && code != "" {
				return string(code)
			}
		}
	}
	return ""
}
