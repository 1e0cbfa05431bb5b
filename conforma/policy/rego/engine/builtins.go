// The functions conforma adds to Rego: declarations that the compiler checks
// calls against, and the way to whoever knows the answer.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"
)

type builtin struct {
	name        string
	description string
	decl        *types.Function
	// outside says that the answer depends on the world and comes over the pipe.
	outside bool
	// accepts says whether the operands can be answered at all; others are undefined.
	accepts func(args []*ast.Term) bool
	answer  func(e *evaluation, args []*ast.Term) (*ast.Term, error)
}

func init() {
	for _, b := range conformaBuiltins() {
		ast.RegisterBuiltin(&ast.Builtin{
			Name:             b.name,
			Description:      b.description,
			Decl:             b.decl,
			Nondeterministic: b.outside,
		})
		topdown.RegisterBuiltinFunc(b.name, b.evaluate)
	}
}

// evaluate answers a call at most once for the same operands in an evaluation,
// undefined answers included.
func (b builtin) evaluate(bctx topdown.BuiltinContext, args []*ast.Term, iter func(*ast.Term) error) error {
	e := evaluationOf(bctx.Context)
	// The variable that takes the result follows the operands.
	args = args[:b.decl.Arity()]
	if b.accepts != nil && !b.accepts(args) {
		if e != nil {
			e.log("error", "the input has the wrong type", map[string]string{"function": b.name})
		}
		return nil
	}
	key := memoKey(b.name, args)
	term, known := recall(bctx, e, key)
	if !known {
		made, err := b.answer(e, args)
		if err != nil {
			return topdown.Halt{Err: err}
		}
		term = made
		remember(bctx, e, key, made)
	}
	if term == nil {
		return nil
	}
	return iter(term)
}

// recall and remember use the memo of the evaluation, which covers all its
// queries, or else that of the query.
func recall(bctx topdown.BuiltinContext, e *evaluation, key string) (*ast.Term, bool) {
	if e != nil && e.memo != nil {
		term, known := e.memo[key]
		return term, known
	}
	value, known := bctx.Cache.Get(key)
	term, _ := value.(*ast.Term)
	return term, known
}

func remember(bctx topdown.BuiltinContext, e *evaluation, key string, term *ast.Term) {
	if e != nil && e.memo != nil {
		e.memo[key] = term
		return
	}
	bctx.Cache.Put(key, term)
}

func memoKey(name string, args []*ast.Term) string {
	key := name
	for _, arg := range args {
		key += "\x00" + arg.String()
	}
	return key
}

func conformaBuiltins() []builtin {
	ref := named("ref", types.S, "OCI image reference")
	blobRef := named("ref", types.S, "OCI blob reference")
	paths := named("paths", oneElement(types.S), "the list of paths")
	files := types.NewObject(nil, types.NewDynamicProperty(types.S, types.A))
	return []builtin{
		asking("ec.oci.blob", "Fetch a blob from an OCI registry.",
			returning(named("blob", types.S, "the OCI blob"), blobRef), texts),
		asking("ec.oci.parsed_blob", "Fetch a blob from an OCI registry and return the parsed JSON value.",
			returning(named("value", types.A, "the parsed JSON value from the OCI blob"), blobRef), texts),
		asking("ec.oci.blob_files", "Fetch structured files (YAML or JSON) from within a blob tar archive.",
			returning(named("files", files, "object representing the extracted files"), blobRef, paths), textAndList),
		asking("ec.oci.image_files", "Fetch structured files (YAML or JSON) from within an image.",
			returning(named("files", files, "object representing the extracted files"), ref, paths), textAndList),
		asking("ec.oci.descriptor", "Fetch a raw Image from an OCI registry.",
			returning(named("object", descriptorType(), "the OCI descriptor object"), ref), texts),
		asking("ec.oci.image_manifest", "Fetch an Image Manifest from an OCI registry.",
			returning(named("object", manifestType(), "the Image Manifest object"), ref), texts),
		asking("ec.oci.image_manifests", "Fetch Image Manifests from an OCI registry in parallel.",
			returning(
				named("manifests", types.NewObject(nil, types.NewDynamicProperty(types.S, manifestType())),
					"object mapping refs to their Image Manifest objects"),
				named("refs", types.NewSet(types.S), "set of OCI image references")), setOfTexts),
		asking("ec.oci.image_index", "Fetch an Image Index from an OCI registry.",
			returning(named("object", indexType(), "the Image Index object"), ref), texts),
		asking("ec.oci.image_tag_refs",
			"Discover artifacts attached to an image via legacy tag-based discovery (cosign .sig, .att, .sbom suffixes).",
			returning(named("refs", oneElement(types.S), "list of tag-based artifact references"), ref), texts),
		asking("ec.oci.image_referrers", "Discover artifacts attached to an image via OCI Referrers API.",
			returning(named("referrers", oneElement(referrerType()), "list of referrer descriptors"), ref), texts),
		asking("conforma.oci.image_tree", "List the entries of the unpacked file system of an image.",
			returning(named("entries", types.NewArray(nil, treeEntryType()),
				"the entries that match the filter, sorted by path"),
				ref, named("filter", types.NewObject(nil, types.NewDynamicProperty(types.S, types.A)), "what to list")), textAndObject),
		asking("ec.sigstore.verify_image", "Use sigstore to verify the signature of an image.",
			returning(named("result", verifyImageType(), "the result of the verification request"),
				ref, named("opts", sigstoreOptionsType(), "Sigstore verification options")), nil),
		asking("ec.sigstore.verify_attestation", "Use sigstore to verify the attestation of an image.",
			returning(named("result", verifyAttestationType(), "the result of the verification request"),
				ref, named("opts", sigstoreOptionsType(), "Sigstore verification options")), nil),
		{
			name: "ec.purl.is_valid", description: "Determine whether or not a given PURL is valid.",
			// Declared a string although it is a boolean, as policies know it.
			decl:   returning(named("result", types.S, "PURL validity"), named("purl", types.S, "the PURL")),
			answer: purlIsValid,
		},
		{
			name: "ec.purl.parse", description: "Parse a valid PURL into an object.",
			decl:   returning(named("object", purlType(), "the parsed PURL object"), named("purl", types.S, "the PURL")),
			answer: purlParse,
		},
	}
}

func asking(name, description string, decl *types.Function, accepts func([]*ast.Term) bool) builtin {
	return builtin{
		name: name, description: description, decl: decl, outside: true, accepts: accepts,
		answer: func(e *evaluation, args []*ast.Term) (*ast.Term, error) { return ask(e, name, args) },
	}
}

func ask(e *evaluation, name string, args []*ast.Term) (*ast.Term, error) {
	if e == nil {
		return unreachable(name), nil
	}
	operands := make([]any, len(args))
	for i, arg := range args {
		value, err := ast.JSON(arg.Value)
		if err != nil {
			return nil, err
		}
		operands[i] = value
	}
	text, err := json.Marshal(operands)
	if err != nil {
		return nil, err
	}
	got, err := e.ask(name, text)
	if err != nil {
		return nil, err
	}
	switch got.kind {
	case "undefined":
		return nil, nil
	case "unreachable":
		return unreachable(name), nil
	case "text":
		return ast.StringTerm(string(got.body)), nil
	}
	value, err := ast.ValueFromReader(bytes.NewReader(got.body))
	if err != nil {
		return nil, fmt.Errorf("answer to %s: %w", name, err)
	}
	return ast.NewTerm(value), nil
}

// unreachable is what a function yields when no registry can be asked.
func unreachable(name string) *ast.Term {
	failed := func(evidence string) *ast.Term {
		return ast.ObjectTerm(
			ast.Item(ast.StringTerm("success"), ast.BooleanTerm(false)),
			ast.Item(ast.StringTerm("errors"), ast.ArrayTerm(ast.StringTerm("the registry could not be reached"))),
			ast.Item(ast.StringTerm(evidence), ast.ArrayTerm()),
		)
	}
	switch name {
	case "ec.oci.image_manifests":
		return ast.ObjectTerm()
	case "ec.sigstore.verify_image":
		return failed("signatures")
	case "ec.sigstore.verify_attestation":
		return failed("attestations")
	}
	return nil
}

func texts(args []*ast.Term) bool {
	_, ok := args[0].Value.(ast.String)
	return ok
}

func textAndList(args []*ast.Term) bool {
	list, ok := args[1].Value.(*ast.Array)
	return ok && texts(args) && !list.Until(isNoText)
}

func setOfTexts(args []*ast.Term) bool {
	set, ok := args[0].Value.(ast.Set)
	return ok && !set.Until(isNoText)
}

func textAndObject(args []*ast.Term) bool {
	_, ok := args[1].Value.(ast.Object)
	return ok && texts(args)
}

func isNoText(term *ast.Term) bool {
	_, ok := term.Value.(ast.String)
	return !ok
}
