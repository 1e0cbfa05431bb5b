// What a rule looks at: its own text, the parts of input and data it depends
// on, directly and through other rules, and the functions of ours it calls.
package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"
)

type ruleDetails struct {
	Text      string   `json:"text"`
	Depends   [][]any  `json:"depends"`
	Functions []string `json:"functions"`
}

// details describes the rules that begin at a row of a file.
func (r *ruleset) details(file string, row int) (*ruleDetails, error) {
	module := r.compiler.Modules[file]
	if module == nil {
		return nil, fmt.Errorf("no module was read from %s", file)
	}
	// Looking rules up fills tables of the compiler that queries use as well.
	r.mu.Lock()
	defer r.mu.Unlock()
	found := &ruleDetails{Depends: [][]any{}, Functions: []string{}}
	for _, rule := range module.Rules {
		if rule.Location.Row != row {
			continue
		}
		if text := string(rule.Location.Text); len(text) > len(found.Text) {
			found.Text = text
		}
		refs, err := dependencies.Base(r.compiler, rule)
		if err != nil {
			return nil, err
		}
		for _, ref := range refs {
			steps, err := ast.JSON(ast.NewArray(ref[1:]...))
			if err != nil {
				return nil, err
			}
			found.Depends = append(found.Depends, append([]any{ref[0].String()}, steps.([]any)...))
		}
		found.Functions = append(found.Functions, r.functions(rule)...)
	}
	slices.Sort(found.Functions)
	found.Functions = slices.Compact(found.Functions)
	return found, nil
}

// functions are the names of our builtins that a rule calls, directly or
// through the rules it depends on.
func (r *ruleset) functions(rule *ast.Rule) []string {
	var names []string
	seen := map[*ast.Rule]bool{}
	var visit func(rule *ast.Rule)
	visit = func(rule *ast.Rule) {
		if seen[rule] {
			return
		}
		seen[rule] = true
		ast.WalkRefs(rule, func(ref ast.Ref) bool {
			if name := ref.String(); strings.HasPrefix(name, "ec.") || strings.HasPrefix(name, "conforma.") {
				names = append(names, name)
			}
			for _, other := range r.compiler.GetRules(ref) {
				visit(other)
			}
			return false
		})
	}
	visit(rule)
	return names
}
