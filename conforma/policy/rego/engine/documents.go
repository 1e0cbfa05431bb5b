// The data documents as a read-only store of OPA terms: nothing is converted
// or copied for an evaluation, and an overlay shares all it does not replace.
package main

import (
	"bytes"
	"context"
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

type documents struct {
	storage.WritesNotSupported
	storage.PolicyNotSupported
	storage.TriggersNotSupported
	root ast.Object
}

// view is what one evaluation sees; it is that evaluation's transaction.
type view struct{ root ast.Object }

func (view) ID() uint64 { return 0 }

// with returns a view on the documents in which the members of the overlay
// replace, object by object, what is there.
func (d documents) with(overlay ast.Object) view {
	if overlay == nil {
		return view{root: d.root}
	}
	return view{root: replaced(d.root, overlay)}
}

func replaced(base, overlay ast.Object) ast.Object {
	result := ast.NewObjectWithCapacity(base.Len() + overlay.Len())
	base.Foreach(func(key, old *ast.Term) {
		if overlay.Get(key) == nil {
			result.Insert(key, old)
		}
	})
	overlay.Foreach(func(key, fresh *ast.Term) {
		old := base.Get(key)
		if old != nil {
			below, isObject := old.Value.(ast.Object)
			above, alsoObject := fresh.Value.(ast.Object)
			if isObject && alsoObject {
				fresh = ast.NewTerm(replaced(below, above))
			}
		}
		result.Insert(key, fresh)
	})
	return result
}

func (d documents) NewTransaction(context.Context, ...storage.TransactionParams) (storage.Transaction, error) {
	return view{root: d.root}, nil
}

func (d documents) Read(_ context.Context, txn storage.Transaction, path storage.Path) (any, error) {
	seen, ok := txn.(view)
	if !ok {
		return nil, &storage.Error{Code: storage.InvalidTransactionErr, Message: "not a transaction of this store"}
	}
	var node ast.Value = seen.root
	for _, step := range path {
		next, err := node.Find(ast.Ref{stepTerm(node, step)})
		if err != nil {
			return nil, &storage.Error{Code: storage.NotFoundErr, Message: path.String() + ": document does not exist"}
		}
		node = next
	}
	return node, nil
}

func stepTerm(node ast.Value, step string) *ast.Term {
	if _, isArray := node.(*ast.Array); isArray {
		return ast.NewTerm(ast.Number(step))
	}
	return ast.StringTerm(step)
}

func (documents) Commit(context.Context, storage.Transaction) error { return nil }

func (documents) Abort(context.Context, storage.Transaction) {}

func (documents) Truncate(context.Context, storage.Transaction, storage.TransactionParams, storage.Iterator) error {
	return &storage.Error{Code: storage.WritesNotSupportedErr, Message: "the documents are read-only"}
}

func parseObject(text []byte) (ast.Object, error) {
	value, err := ast.ValueFromReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	object, ok := value.(ast.Object)
	if !ok {
		return nil, errors.New("a data document must be an object")
	}
	return object, nil
}
