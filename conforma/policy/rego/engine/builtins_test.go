package main

import (
	"slices"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

func TestCapabilitiesHaveOurFunctionsAndNoWayOut(t *testing.T) {
	allowed := restricted()
	has := func(name string) bool {
		return slices.ContainsFunc(allowed.Builtins, func(b *ast.Builtin) bool { return b.Name == name })
	}
	for _, name := range removedBuiltins {
		if has(name) {
			t.Errorf("%s is allowed", name)
		}
	}
	for _, b := range conformaBuiltins() {
		if !has(b.name) {
			t.Errorf("%s is missing", b.name)
		}
	}
	if len(allowed.AllowNet) != 1 || allowed.AllowNet[0] != "" {
		t.Errorf("hosts allowed: %q", allowed.AllowNet)
	}
}

func TestOnlyFunctionsOfTheWorldAreNondeterministic(t *testing.T) {
	for _, b := range conformaBuiltins() {
		registered := ast.BuiltinMap[b.name]
		purl := b.name == "ec.purl.is_valid" || b.name == "ec.purl.parse"
		if registered.Nondeterministic == purl {
			t.Errorf("%s: nondeterministic is %v", b.name, registered.Nondeterministic)
		}
		if registered.Description == "" {
			t.Errorf("%s has no description", b.name)
		}
	}
}
