// A ruleset: modules compiled once, data documents loaded once, queries
// prepared once; immutable afterwards and shared by all evaluations.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/loader"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown/cache"
)

// removedBuiltins are the ways out of the sandbox.
var removedBuiltins = []string{"opa.runtime", "http.send", "net.lookup_ip_addr"}

// restricted is what a policy may use: everything this engine has, except the
// removed functions and any host on the network.
func restricted() *ast.Capabilities {
	capabilities := ast.CapabilitiesForThisVersion()
	capabilities.AllowNet = []string{""}
	capabilities.Builtins = slices.DeleteFunc(capabilities.Builtins, func(b *ast.Builtin) bool {
		return slices.Contains(removedBuiltins, b.Name)
	})
	return capabilities
}

type ruleset struct {
	compiler *ast.Compiler
	data     documents
	values   cache.InterQueryValueCache

	mu      sync.Mutex
	queries map[string]rego.PreparedEvalQuery
}

// compileRuleset loads every .rego file below the policy directories, tests
// included, and every document below the data directories.
func compileRuleset(ctx context.Context, policyDirs, dataDirs []string, document []byte) (*ruleset, *failure) {
	modules, err := loadModules(policyDirs)
	if err != nil {
		return nil, newFailure("compile", fmt.Errorf("load: loading policies: load: %w", err))
	}
	if len(modules) == 0 {
		return nil, newFailure("compile", fmt.Errorf("load: loading policies: no policies found in %v", policyDirs))
	}
	compiler := ast.NewCompiler().WithEnablePrintStatements(true).WithCapabilities(restricted())
	if compiler.Compile(modules); compiler.Failed() {
		return nil, newFailure("compile", fmt.Errorf("load: loading policies: get compiler: %w", compiler.Errors))
	}
	if err := checkContains(modules); err != nil {
		return nil, newFailure("compile", fmt.Errorf("load: loading policies: %w", err))
	}
	data, err := loadDocuments(dataDirs, document)
	if err != nil {
		return nil, newFailure("data", fmt.Errorf("load: load documents: %w", err))
	}
	size := 1000
	config := &cache.Config{InterQueryBuiltinValueCache: cache.InterQueryBuiltinValueCacheConfig{MaxNumEntries: &size}}
	return &ruleset{
		compiler: compiler,
		data:     data,
		values:   cache.NewInterQueryValueCache(ctx, config),
		queries:  map[string]rego.PreparedEvalQuery{},
	}, nil
}

// prepared compiles a query at its first use. Compiling a query reads shared
// tables of the compiler, hence one at a time.
func (r *ruleset) prepared(ctx context.Context, query string) (rego.PreparedEvalQuery, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found, ok := r.queries[query]; ok {
		return found, nil
	}
	made, err := rego.New(
		rego.Query(query),
		rego.Compiler(r.compiler),
		rego.Store(r.data),
		rego.EnablePrintStatements(true),
		rego.Capabilities(r.compiler.Capabilities()),
	).PrepareForEval(ctx)
	if err == nil {
		r.queries[query] = made
	}
	return made, err
}

// checkContains refuses "deny if …" without "contains": it makes one boolean
// where a set of messages is meant, so the rule could never report anything.
func checkContains(modules map[string]*ast.Module) error {
	for _, name := range sortedNames(modules) {
		for _, rule := range modules[name].Rules {
			head := rule.Head
			if head == nil || head.Name != "" || head.Value == nil || len(head.Reference) == 0 {
				continue
			}
			if !isVerdict(strings.Trim(head.Reference[0].Value.String(), `"`)) || head.Value.String() != "true" {
				continue
			}
			return fmt.Errorf("rule is using 'if' keyword without 'contains' keyword: rule in %s at line %d",
				modules[name].Package.Loc().File, head.Location.Row)
		}
	}
	return nil
}

func sortedNames(modules map[string]*ast.Module) []string {
	names := make([]string, 0, len(modules))
	for name := range modules {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// loadModules parses all policy files on all processors.
func loadModules(dirs []string) (map[string]*ast.Module, error) {
	paths, err := loader.FilteredPaths(loaderPaths(dirs), func(_ string, info os.FileInfo, _ int) bool {
		return !info.IsDir() && !strings.HasSuffix(info.Name(), ".rego")
	})
	if err != nil {
		return nil, err
	}
	parsed := make([]*ast.Module, len(paths))
	failed := make([]error, len(paths))
	var wait sync.WaitGroup
	turn := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, path := range paths {
		wait.Add(1)
		go func() {
			defer wait.Done()
			turn <- struct{}{}
			defer func() { <-turn }()
			parsed[i], failed[i] = parseModule(path, path)
		}()
	}
	wait.Wait()
	if errs := slices.DeleteFunc(failed, func(err error) bool { return err == nil }); len(errs) > 0 {
		return nil, loader.Errors(errs)
	}
	modules := make(map[string]*ast.Module, len(paths))
	for i, path := range paths {
		modules[path] = parsed[i]
	}
	return modules, nil
}

// loaderPaths writes paths so that OPA's loader takes a colon in one for what
// it is, and not for the end of a prefix.
func loaderPaths(paths []string) []string {
	written := slices.Clone(paths)
	for i, path := range written {
		if absolute, err := filepath.Abs(path); err == nil && strings.Contains(path, ":") {
			written[i] = (&url.URL{Scheme: "file", Path: absolute}).String()
		}
	}
	return written
}

// parseModule reads path; positions in it are reported under name.
func parseModule(path, name string) (*ast.Module, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	module, err := ast.ParseModuleWithOpts(name, string(text), ast.ParserOptions{ProcessAnnotation: true})
	if err == nil && module == nil {
		return nil, fmt.Errorf("%s: the file holds no module", name)
	}
	return module, err
}

var documentSuffixes = []string{".json", ".yaml", ".yml"}

// loadDocuments merges the given document with all data files. Every
// directory that directly holds a data file is a root: the content of its
// files appears at the top of data.
func loadDocuments(dirs []string, document []byte) (documents, error) {
	merged := ast.NewObject()
	if roots, err := dataRoots(dirs); err != nil {
		return documents{}, err
	} else if len(roots) > 0 {
		loaded, err := loader.NewFileLoader().Filtered(loaderPaths(roots), func(_ string, info os.FileInfo, _ int) bool {
			return !info.IsDir() && !slices.Contains(documentSuffixes, filepath.Ext(info.Name()))
		})
		if err != nil {
			return documents{}, err
		}
		value, err := ast.InterfaceToValue(loaded.Documents)
		if err != nil {
			return documents{}, err
		}
		merged = value.(ast.Object)
	}
	if len(document) == 0 {
		return documents{root: merged}, nil
	}
	given, err := parseObject(document)
	if err != nil {
		return documents{}, err
	}
	both, ok := merged.Merge(given)
	if !ok {
		return documents{}, errors.New("the given document overlaps with a data file: merge error")
	}
	return documents{root: both}, nil
}

func dataRoots(dirs []string) ([]string, error) {
	var roots []string
	for _, dir := range dirs {
		files, err := loader.FilteredPaths(loaderPaths([]string{dir}), func(_ string, info os.FileInfo, _ int) bool {
			return !info.IsDir() && !slices.Contains(documentSuffixes, filepath.Ext(info.Name()))
		})
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if root := filepath.Dir(file); !slices.Contains(roots, root) {
				roots = append(roots, root)
			}
		}
	}
	return roots, nil
}
